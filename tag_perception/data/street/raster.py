"""Flat polygons → which one each pixel sees, and where: an exact z-buffer in torch operations.

Every quadrilateral is cut into pixel rows; in a row its edges give the first and the last column
in closed form, so only pixels inside are ever touched. All rows of all polygons are handled
together: the number of tensor operations does not depend on the scene, which is what a GPU needs,
and no pixel is tested in vain, which is what a CPU needs. Edges are planes through the optical
centre, so nothing has to be clipped at the camera, and two polygons that share an edge never both
cover, nor both miss, a pixel. The depth of a pixel is the exact intersection of its ray with the
plane.

The pixels of a row come in runs of at most LANES; the runs of all polygons form one (LANES, R)
block that plain vector arithmetic fills, with no look-up per pixel. Arrays are planar, the index
of the polygon or run last: that is what vectorises.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tag_perception.data.street.planes import DECAL, GROUND, SHADOW, Lens, Planes
from tag_perception.data.street.textures import Atlas

DECAL_BIAS = 1.5e-3
"""Relative advantage of a painted mark over the ground it lies in, in inverse depth."""
LANES = 8
"""Pixels of one run."""
FURTHEST_M = 1e6
"""Where rays end that meet nothing."""


@dataclass(frozen=True)
class Pixels:
    """What every pixel of an image sees, flattened row by row (H W = N)."""

    planes: Planes
    polygon: Tensor
    """(N,) int64 index into `planes`; 0 where `hit` is False."""
    hit: Tensor
    """(N,) bool, False in the sky."""
    depth: Tensor
    """(N,) float32 z of S in metres; FURTHEST_M in the sky."""
    shade: Tensor
    """(N,) float32 share of the light that shadows on the ground let through."""
    coverage: Tensor
    """(things,) int64 pixels that each thing would cover if nothing stood in front of it."""


def rasterise(planes: Planes, lens: Lens, atlas: Atlas, things: int) -> Pixels:
    """The nearest polygon of every pixel, shadows on the ground, full extents of all things."""
    polygons = planes.polygons
    cutout = atlas.cutout.index_select(0, polygons.texture)
    # Plain surfaces, those of things, what may have holes (of things, too), shadows.
    kind = torch.where(cutout, 2, (polygons.thing > 0).to(torch.int64))
    kind = torch.where(polygons.kind == SHADOW, 3, kind)
    *groups, shadows = Runs.of(planes, lens, kind, 4)
    extent = Extent.of(groups[1:], polygons.thing, things, lens.width)
    # The last run of a row may stick out of it, where its lanes are dead.
    buffer = torch.zeros(lens.height * lens.width + LANES, dtype=torch.int64, device=cutout.device)
    base = 1
    for index, runs in enumerate(groups):
        pixel, inverse, live = runs.lanes()
        if index == 2:
            live &= runs.opaque(planes, atlas, inverse)
        if index > 0:
            extent.paint(runs, pixel, live)
        # Bits of positive floats sort like the floats: the largest key is the nearest surface.
        key = (
            inverse.view(torch.int32)
            .to(torch.int64)
            .bitwise_left_shift_(32)
            .add_(runs.numbers(base))
        )
        buffer.scatter_reduce_(0, pixel.view(-1), key.mul_(live).view(-1), 'amax')
        base += len(runs.polygon)
    buffer = buffer[:-LANES]
    owner = torch.cat([buffer.new_zeros(1), *(runs.polygon for runs in groups)])
    polygon, hit = owner.index_select(0, buffer & 0xFFFFFFFF), buffer > 0
    depth = planes.depth(polygon, hit, lens, FURTHEST_M)
    shade = _shade(shadows, planes, atlas, polygon, hit)
    return Pixels(planes, polygon, hit, depth, shade, extent.count())


@dataclass(frozen=True)
class Runs:
    """R runs of up to LANES pixels in a row, each inside one polygon."""

    polygon: Tensor
    """(R,) int64."""
    pixel: Tensor
    """(R,) int64 index of the first pixel."""
    x: Tensor
    """(R,) int64 column of the first pixel, and its row `y`."""
    y: Tensor
    count: Tensor
    """(R,) int64 pixels, 1 … LANES."""
    inverse: Tensor
    """(2, R) float32 1/z of the first pixel and its change per pixel, biased for marks."""
    lane: Tensor
    """(LANES, 1) int64 0, 1, 2, …"""

    @staticmethod
    def of(planes: Planes, lens: Lens, kind: Tensor, kinds: int) -> list[Runs]:
        """All runs of the polygons of each kind, (P,) int64 0 … kinds - 1."""
        kind, chosen = kind.sort(stable=True)
        begin, count = planes.rows.index_select(1, chosen)
        local, y = _expand(count)
        y = y + begin.index_select(0, local)
        edge = planes.edge.index_select(2, chosen).index_select(2, local)  # (4, 4 edges, rows)
        column = torch.addcmul(edge[1], edge[0], y.to(torch.float32))
        low = (column + edge[2]).amax(0).clamp_(0, lens.width).ceil_()
        high = (column + edge[3]).amin(0).clamp_(0, lens.width).ceil_()
        keep = (high > low).nonzero()[:, 0]
        low, high, local, y = (t.index_select(0, keep) for t in (low, high, local, y))
        low = low.to(torch.int64)
        length = high.to(torch.int64) - low
        row, piece = _expand((length + LANES - 1).bitwise_right_shift(LANES.bit_length() - 1))
        local, y = local.index_select(0, row), y.index_select(0, row)
        shift = piece * LANES
        x = low.index_select(0, row) + shift
        count = (length.index_select(0, row) - shift).clamp_max_(LANES)
        polygon = chosen.index_select(0, local)
        a, b, c = planes.inverse_depth.index_select(1, polygon)
        bias = 1 + DECAL_BIAS * (planes.polygons.kind == DECAL).index_select(0, polygon)
        inverse = torch.stack(((a * x + b * y + c) * bias, a * bias))
        lane = torch.arange(LANES, device=x.device)[:, None]
        last = torch.arange(kinds, device=x.device)
        ends = torch.searchsorted(kind.index_select(0, local), last, right=True).cpu()
        pixel = y * lens.width + x
        return [
            Runs(polygon[of], pixel[of], x[of], y[of], count[of], inverse[:, of], lane)
            for of in itertools.starmap(slice, itertools.pairwise([0, *ends.tolist()]))
        ]

    def lanes(self) -> tuple[Tensor, Tensor, Tensor]:
        """(LANES, R) pixel index, 1/z, and whether the run is that long."""
        first, slope = self.inverse
        inverse = torch.addcmul(first, slope, self.lane.to(torch.float32)).clamp_min_(1e-9)
        return self.pixel + self.lane, inverse, self.lane < self.count

    def numbers(self, base: int) -> Tensor:
        """(R,) int64 base, base + 1, …"""
        return torch.arange(base, base + len(self.polygon), device=self.polygon.device)

    def texture_coordinates(self, planes: Planes, inverse: Tensor) -> tuple[Tensor, Tensor]:
        """(LANES, R) u and v."""
        depth, lane = inverse.reciprocal(), self.lane.to(torch.float32)
        result = []
        for axis in (planes.along, planes.up):
            a, b, c, d = axis.index_select(1, self.polygon)
            result.append(
                torch.addcmul(d, torch.addcmul(a * self.x + b * self.y + c, a, lane), depth)
            )
        return result[0], result[1]

    def opaque(self, planes: Planes, atlas: Atlas, inverse: Tensor) -> Tensor:
        """(LANES, R) bool: the texture covers the pixel."""
        u, v = self.texture_coordinates(planes, inverse)
        level = planes.detail.index_select(0, self.polygon) - 1.5 * torch.log2(inverse[0])
        texture = planes.polygons.texture.index_select(0, self.polygon)
        return atlas.sample(texture, u, v, level) < 0  # the sign bit is the upper half of A


def _expand(count: Tensor) -> tuple[Tensor, Tensor]:
    """For counts 2, 0, 3: owners 0 0 2 2 2 and positions 0 1 0 1 2."""
    end = count.cumsum(0)
    total = int(end[-1]) if len(end) else 0
    owner = torch.repeat_interleave(count, output_size=total)
    return owner, torch.arange(total, device=count.device) - (end - count).index_select(0, owner)


@dataclass
class Extent:
    """One bit per pixel of every thing's own screen rectangle, set where it would be seen."""

    base: Tensor
    """(things,) int64 where each rectangle begins in `bits`."""
    area: Tensor
    """(things,) int64."""
    bits: Tensor
    """All rectangles, and one spare at the end."""
    offsets: dict[int, Tensor]
    """Per group of runs, by id: index of a bit minus index of its pixel."""

    @staticmethod
    def of(groups: Sequence[Runs], thing: Tensor, things: int, width: int) -> Extent:
        """Rectangles around all runs of each thing."""
        owners = [thing.index_select(0, runs.polygon).to(torch.int64) for runs in groups]
        owner = torch.cat(owners)
        x, y, count = (
            torch.cat([getattr(runs, n) for runs in groups]) for n in ('x', 'y', 'count')
        )
        x0, y0 = (_segment(value, owner, things, 'amin', 1 << 30) for value in (x, y))
        x1, y1 = (_segment(value, owner, things, 'amax', 0) for value in (x + count, y + 1))
        stride = (x1 - x0).clamp_min(0)
        area = stride * (y1 - y0).clamp_min(0)
        area[0] = 0  # number 0 is everything that is not a thing
        base = area.cumsum(0) - area
        bits = torch.zeros(int(area.sum()) + 1, dtype=torch.uint8, device=thing.device)
        offsets = {}
        for runs, own in zip(groups, owners, strict=True):
            corner = base - y0 * stride - x0
            offset = corner.index_select(0, own) + runs.y * (stride.index_select(0, own) - width)
            offsets[id(runs)] = torch.where(own > 0, offset, -(1 << 40))
        return Extent(base, area, bits, offsets)

    def paint(self, runs: Runs, pixel: Tensor, live: Tensor) -> None:
        """Set the bits of live pixels."""
        index = pixel + self.offsets[id(runs)]
        index = torch.where(live & (index >= 0), index, len(self.bits) - 1)
        self.bits.scatter_(0, index.view(-1), 1)

    def count(self) -> Tensor:
        """(things,) int64 number of set bits."""
        total = torch.nn.functional.pad(self.bits.cumsum(0, dtype=torch.int64), (1, 0))
        return total[self.base + self.area] - total[self.base]


def _segment(value: Tensor, owner: Tensor, things: int, how: str, start: int) -> Tensor:
    return value.new_full((things,), start).scatter_reduce_(0, owner, value, how)


def _shade(runs: Runs, planes: Planes, atlas: Atlas, polygon: Tensor, hit: Tensor) -> Tensor:
    """Shadows lie in the ground, so they apply wherever the ground itself is what a pixel sees."""
    kind = planes.polygons.kind
    pixel, inverse, live = runs.lanes()
    u, v = runs.texture_coordinates(planes, inverse)
    texture = planes.polygons.texture.index_select(0, runs.polygon)
    leaves = atlas.sample(texture, u, v, torch.full_like(inverse[0], 2.0)) < 0
    strength, softness = planes.polygons.color[:2].index_select(1, runs.polygon)
    inside = torch.minimum(torch.minimum(u, 1 - u), torch.minimum(v, 1 - v)) / softness
    dark = inside.clamp_(0, 1).mul_(strength).mul_(live & leaves)
    shade = dark.new_zeros(len(polygon) + LANES)
    shade = shade.scatter_reduce_(0, pixel.view(-1), dark.view(-1), 'amax')[:-LANES]
    on_ground = ((kind == GROUND) | (kind == DECAL)).index_select(0, polygon) & hit
    return 1 - shade * on_ground
