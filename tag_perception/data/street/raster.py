"""Flat polygons → which one each pixel sees, and where: an exact z-buffer in torch operations.

Every quadrilateral is cut into pixel rows; in a row its edges give the first and the last column in
closed form, so only pixels inside are ever touched. All rows of all polygons are handled together:
the number of tensor operations does not depend on the scene, which is what a GPU needs, and no
pixel is tested in vain, which is what a CPU needs. Edges are planes through the optical centre, so
nothing has to be clipped at the camera, and two polygons that share an edge never both cover, nor
both miss, a pixel. The depth of a pixel is the exact intersection of its ray with the plane.

Arrays are planar, the polygon (run, pixel) index last: that is what vectorises.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tag_perception.data.street.planes import DECAL, GROUND, SHADOW, Lens, Planes
from tag_perception.data.street.textures import Atlas

DECAL_BIAS = 1.5e-3
"""Relative advantage of a painted mark over the ground it lies in, in inverse depth."""
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
    """The nearest polygon of every pixel, shadows on the ground, and full extents of all things."""
    polygons = planes.polygons
    cutout = atlas.cutout.index_select(0, polygons.texture)
    shadow, owned = polygons.kind == SHADOW, polygons.thing > 0
    groups = [
        Spans.of(planes, lens, (~shadow & ~cutout & ~owned).nonzero()[:, 0]),
        Spans.of(planes, lens, (~shadow & ~cutout & owned).nonzero()[:, 0]),
        Spans.of(planes, lens, (~shadow & cutout).nonzero()[:, 0]),
    ]
    extent = Extent.of(groups[1:], polygons.thing, things, lens.width)
    buffer = torch.zeros(lens.height * lens.width, dtype=torch.int64, device=cutout.device)
    base = 0
    for index, spans in enumerate(groups):
        run, pixel, inverse = spans.fragments(lens.width)
        if index == 2:
            keep = spans.opaque(planes, atlas, run, pixel, inverse, lens.width).nonzero()[:, 0]
            run, pixel, inverse = (t.index_select(0, keep) for t in (run, pixel, inverse))
        if index > 0:
            extent.paint(spans, run, pixel)
        # Bits of positive floats sort like the floats: the largest key is the nearest surface.
        key = inverse.view(torch.int32).to(torch.int64).bitwise_left_shift_(32).add_(run).add_(base)
        buffer.scatter_reduce_(0, pixel, key, 'amax')
        base += len(spans.polygon)
    owner = torch.cat([*(spans.polygon for spans in groups), buffer.new_zeros(1)])
    hit = buffer > 0
    polygon = owner.index_select(0, (buffer & 0xFFFFFFFF) + (~hit) * base)
    depth = planes.depth(polygon, hit, lens, FURTHEST_M)
    return Pixels(planes, polygon, hit, depth, _shade(planes, atlas, polygon, hit, lens), extent.count())


@dataclass(frozen=True)
class Spans:
    """Runs of pixels inside polygons, one per polygon and row; R runs, F pixels in all."""

    polygon: Tensor
    """(R,) int64."""
    y: Tensor
    """(R,) int64."""
    first: Tensor
    """(R,) int64 first column."""
    count: Tensor
    """(R,) int64 columns."""
    start: Tensor
    """(R,) int64 pixels in all runs before."""
    inverse: Tensor
    """(2, R) float32 biased 1/z at column 0, and its change per column."""
    total: int

    @staticmethod
    def of(planes: Planes, lens: Lens, chosen: Tensor) -> Spans:
        """The runs of the chosen polygons."""
        begin, count = planes.rows.index_select(1, chosen)
        total = int(count.sum())
        local = torch.repeat_interleave(count, output_size=total)
        offset = begin - (count.cumsum(0) - count)
        y = torch.arange(total, device=chosen.device) + offset.index_select(0, local)
        polygon = chosen.index_select(0, local)
        edge = planes.edge.index_select(2, polygon)  # (4 numbers, 4 edges, runs)
        column = edge[0] * y.to(torch.float32) + edge[1]
        low = (column + edge[2]).amax(0).clamp_(0, lens.width).ceil_()
        high = (column + edge[3]).amin(0).clamp_(0, lens.width).ceil_()
        keep = (high > low).nonzero()[:, 0]
        polygon, y, low, high = (t.index_select(0, keep) for t in (polygon, y, low, high))
        size = (high - low).to(torch.int64)
        end = size.cumsum(0)
        a, b, c = planes.inverse_depth.index_select(1, polygon)
        bias = 1 + DECAL_BIAS * (planes.polygons.kind == DECAL).index_select(0, polygon)
        inverse = torch.stack(((b * y + c) * bias, a * bias))
        amount = int(end[-1]) if len(end) else 0
        return Spans(polygon, y, low.to(torch.int64), size, end - size, inverse, amount)

    def fragments(self, width: int) -> tuple[Tensor, Tensor, Tensor]:
        """(F,) run, (F,) pixel index and (F,) 1/z of every pixel of every run."""
        run = torch.repeat_interleave(self.count, output_size=self.total)
        shift = self.first - self.start
        column = torch.arange(self.total, device=run.device) + shift.index_select(0, run)
        pixel = column + (self.y * width).index_select(0, run)
        at_zero, slope = self.inverse.index_select(1, run)
        return run, pixel, torch.addcmul(at_zero, slope, column.to(torch.float32)).clamp_min_(1e-9)

    def texture_coordinates(
        self, planes: Planes, run: Tensor, pixel: Tensor, inverse: Tensor, width: int
    ) -> tuple[Tensor, Tensor]:
        """(F,) u and v of fragments."""
        y = self.y.to(torch.float32)
        rows = []
        for axis in (planes.along, planes.up):
            a, b, c, d = axis.index_select(1, self.polygon)
            rows += [a, b * y + c, d]
        ua, ub, ud, va, vb, vd = torch.stack(rows).index_select(1, run)
        column = (pixel - (self.y * width).index_select(0, run)).to(torch.float32)
        depth = inverse.reciprocal()
        return (ua * column + ub) * depth + ud, (va * column + vb) * depth + vd

    def opaque(
        self, planes: Planes, atlas: Atlas, run: Tensor, pixel: Tensor, inverse: Tensor, width: int
    ) -> Tensor:
        """(F,) bool: the texture covers this fragment."""
        u, v = self.texture_coordinates(planes, run, pixel, inverse, width)
        detail = planes.detail.index_select(0, self.polygon).index_select(0, run)
        texture = planes.polygons.texture.index_select(0, self.polygon).index_select(0, run)
        texel = atlas.sample(texture, u, v, detail - 1.5 * torch.log2(inverse))
        return texel < 0  # the sign bit is the upper half of A


@dataclass
class Extent:
    """One bit per pixel of every thing's own screen rectangle, set where the thing would be seen."""

    base: Tensor
    """(things,) int64 where each rectangle begins in `bits`."""
    area: Tensor
    """(things,) int64."""
    bits: Tensor
    """All rectangles, and one spare at the end."""
    offsets: dict[int, Tensor]
    """Per group of runs, by id: index of a bit minus index of its pixel."""

    @staticmethod
    def of(groups: Sequence[Spans], thing: Tensor, things: int, width: int) -> Extent:
        """Rectangles around all runs of each thing."""
        owners = [thing.index_select(0, s.polygon).to(torch.int64) for s in groups]
        owner = torch.cat(owners)
        first, y, count = (torch.cat([getattr(s, n) for s in groups]) for n in ('first', 'y', 'count'))
        x0, y0 = (_segment(value, owner, things, 'amin', 1 << 30) for value in (first, y))
        x1, y1 = (_segment(value, owner, things, 'amax', 0) for value in (first + count, y + 1))
        stride = (x1 - x0).clamp_min(0)
        area = stride * (y1 - y0).clamp_min(0)
        area[0] = 0  # number 0 is everything that is not a thing
        base = area.cumsum(0) - area
        bits = torch.zeros(int(area.sum()) + 1, dtype=torch.uint8, device=thing.device)
        offsets = {}
        for spans, own in zip(groups, owners, strict=True):
            corner = base - y0 * stride - x0
            offset = corner.index_select(0, own) + spans.y * (stride.index_select(0, own) - width)
            offsets[id(spans)] = torch.where(own > 0, offset, -(1 << 40))
        return Extent(base, area, bits, offsets)

    def paint(self, spans: Spans, run: Tensor, pixel: Tensor) -> None:
        """Set the bits of fragments."""
        index = pixel + self.offsets[id(spans)].index_select(0, run)
        index = torch.where(index < 0, len(self.bits) - 1, index)
        self.bits.scatter_(0, index, 1)

    def count(self) -> Tensor:
        """(things,) int64 number of set bits."""
        total = torch.nn.functional.pad(self.bits.cumsum(0, dtype=torch.int64), (1, 0))
        return total[self.base + self.area] - total[self.base]


def _segment(value: Tensor, owner: Tensor, things: int, how: str, start: int) -> Tensor:
    return value.new_full((things,), start).scatter_reduce_(0, owner, value, how)


def _shade(planes: Planes, atlas: Atlas, polygon: Tensor, hit: Tensor, lens: Lens) -> Tensor:
    """Shadows lie in the ground, so they apply wherever the ground itself is what a pixel sees."""
    kind = planes.polygons.kind
    shade = torch.ones(len(polygon), device=polygon.device)
    spans = Spans.of(planes, lens, (kind == SHADOW).nonzero()[:, 0])
    run, pixel, inverse = spans.fragments(lens.width)
    on_ground = (kind == GROUND) | (kind == DECAL)
    below = on_ground.index_select(0, polygon) & hit
    keep = below.index_select(0, pixel).nonzero()[:, 0]
    run, pixel, inverse = (t.index_select(0, keep) for t in (run, pixel, inverse))
    u, v = spans.texture_coordinates(planes, run, pixel, inverse, lens.width)
    texture = planes.polygons.texture.index_select(0, spans.polygon).index_select(0, run)
    leaves = atlas.sample(texture, u, v, torch.full_like(u, 2.0)) < 0
    tone = planes.polygons.color[:2].index_select(1, spans.polygon)
    strength, softness = tone.index_select(1, run)
    inside = torch.minimum(torch.minimum(u, 1 - u), torch.minimum(v, 1 - v)) / softness
    light = 1 - strength * inside.clamp_(0, 1) * leaves
    return shade.scatter_reduce_(0, pixel, light, 'amin')
