"""Flat polygons → which one each pixel sees, and where: an exact z-buffer in torch operations.

Every quadrilateral is cut into pixel rows; in a row its edges give the first and the last column in
closed form, so only pixels inside are ever touched. All rows of all polygons are handled together:
the number of tensor operations does not depend on the scene, which is what a GPU needs, and no
pixel is tested in vain, which is what a CPU needs. Edges are planes through the optical centre, so
nothing has to be clipped at the camera, and two polygons that share an edge never both cover, nor
both miss, a pixel. The depth of a pixel is the exact intersection of its ray with the plane.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from tag_perception.data.street.textures import SIDE, Atlas

ORDINARY, GROUND, DECAL, SHADOW = 0, 1, 2, 3
"""Polygon kinds: solid things; ground, on which shadows fall; marks painted on the ground (drawn
over the ground they lie in); and shadows, which darken the ground and are not seen themselves."""

DECAL_BIAS = 1.5e-3
"""Relative advantage of a painted mark over the ground it lies in, in inverse depth."""


@dataclass(frozen=True)
class Polygons:
    """P textured quadrilaterals in world coordinates, on one device."""

    corner: Tensor
    """(P, 4, 3) float32 metres."""
    texture: Tensor
    """(P,) int32 index into the atlas."""
    repeat: Tensor
    """(P, 2) float32 tiles along and up; 0: metric."""
    origin: Tensor
    """(P, 2) float32 texture coordinates of the first corner."""
    color: Tensor
    """(P, 4) float32 R, G, B and glow (light of its own); of a SHADOW its strength and softness."""
    thing: Tensor
    """(P,) int32 number of the vehicle or person it belongs to, 0 for everything else."""
    label: Tensor
    """(P,) int32 Cityscapes label id."""
    kind: Tensor
    """(P,) int32 ORDINARY, GROUND, DECAL or SHADOW."""

    def __getitem__(self, index: Tensor) -> Polygons:
        """The polygons that an index tensor selects."""
        return Polygons(*(getattr(self, f.name).index_select(0, index) for f in fields(self)))

    @staticmethod
    def cat(parts: Sequence[Polygons]) -> Polygons:
        """One list after the other."""
        names = [f.name for f in fields(Polygons)]
        return Polygons(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


@dataclass(frozen=True)
class Lens:
    """A pinhole at a place in the world: all that the rasteriser needs to know of a camera."""

    height: int
    width: int
    fx: float
    fy: float
    u0: float
    v0: float
    rotation: Tensor
    """(3, 3) float32 world axes → S."""
    position: Tensor
    """(3,) float32 optical centre in the world."""

    def to_pixel(self, covector: Tensor) -> Tensor:
        """(…, 3) a, b, c with covector · ray = a px + b py + c for the ray through (px, py)."""
        x, y, z = covector.unbind(-1)
        a, b = x / self.fx, y / self.fy
        return torch.stack((a, b, z - a * self.u0 - b * self.v0), -1)


@dataclass(frozen=True)
class Planes:
    """The polygons that face the camera, as planes and edges in pixel coordinates."""

    polygons: Polygons
    normal: Tensor
    """(P, 3) unit world normal towards the camera."""
    inverse_depth: Tensor
    """(P, 3) a, b, c with 1/z = a px + b py + c."""
    along: Tensor
    """(P, 4) a, b, c, d with the texture coordinate u = z (a px + b py + c) + d."""
    up: Tensor
    """(P, 4) the same for v."""
    detail: Tensor
    """(P,) the mip level of the texture is detail + 1.5 log2 z."""
    edge: Tensor
    """(P, 4, 4) slope, offset, floor, ceiling of each edge: in row y it bounds the columns by
    slope y + offset, from below if floor is 0, from above if ceiling is 0 (else ∓ infinity)."""
    rows: Tensor
    """(P, 2) int64 first row and number of rows."""


@dataclass(frozen=True)
class Pixels:
    """What every pixel of an image sees, flattened row by row (H W = N)."""

    planes: Planes
    polygon: Tensor
    """(N,) int64 index into `planes.polygons`; 0 where `hit` is False."""
    hit: Tensor
    """(N,) bool, False in the sky."""
    depth: Tensor
    """(N,) float32 z of S in metres; infinite in the sky."""
    shade: Tensor
    """(N,) float32 share of the light that shadows on the ground let through."""
    coverage: Tensor
    """(things,) int64 pixels that each thing would cover if nothing stood in front of it."""


def rotate(rotation: Tensor, point: Tensor) -> Tensor:
    """R p for (…, 3) points, term by term: equal corners stay equal to the last bit."""
    x, y, z = point.unbind(-1)
    rows = [
        rotation[..., i, 0] * x + rotation[..., i, 1] * y + rotation[..., i, 2] * z
        for i in range(3)
    ]
    return torch.stack(rows, -1)


def project(polygons: Polygons, lens: Lens, atlas: Atlas) -> Planes:
    """Drop what cannot be seen and set up edges, planes and texture coordinates."""
    corner = rotate(lens.rotation, polygons.corner - lens.position)  # (P, 4, 3) in S
    normal = torch.linalg.cross(corner[:, 2] - corner[:, 0], corner[:, 3] - corner[:, 1])
    distance = (normal * corner.mean(1)).sum(-1)
    two_sided = atlas.cutout.index_select(0, polygons.texture) | (polygons.kind == SHADOW)
    visible = _in_view(corner, lens) & (two_sided | (distance < 0)) & (distance != 0)
    keep = visible.nonzero()[:, 0]
    polygons, corner = polygons[keep], corner[keep]
    normal, distance = normal[keep], distance[keep]
    facing = torch.where(distance < 0, 1.0, -1.0)
    scale = normal.norm(dim=-1)
    along, up, density = _texture_axes(polygons, corner, lens, atlas)
    reach = (distance.abs() / scale).clamp_min(1e-3)
    return Planes(
        polygons,
        rotate(lens.rotation.T, normal * (facing / scale)[:, None]),
        lens.to_pixel(normal / distance[:, None]),
        along,
        up,
        torch.log2(density) - 0.5 * torch.log2(reach) - math.log2(lens.fx),
        _edges(corner, facing, lens),
        _rows(corner, lens),
    )


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
    extent = Extent.of(groups[1:], polygons.thing, things)
    buffer = torch.zeros(lens.height * lens.width, dtype=torch.int64, device=cutout.device)
    base = 0
    for index, spans in enumerate(groups):
        row, pixel, inverse = spans.fragments(lens.width)
        if index == 2:
            keep = spans.opaque(planes, atlas, row, pixel, inverse, lens.width).nonzero()[:, 0]
            row, pixel, inverse = row[keep], pixel[keep], inverse[keep]
        if index > 0:
            extent.paint(spans, row, pixel, lens.width)
        key = (inverse.view(torch.int32).to(torch.int64) << 32) | (row + base)
        buffer.scatter_reduce_(0, pixel, key, 'amax')
        base += len(spans.polygon)
    row_polygon = torch.cat([*(spans.polygon for spans in groups), buffer.new_zeros(1)])
    hit = buffer > 0
    polygon = row_polygon.index_select(0, torch.where(hit, buffer & 0xFFFFFFFF, base))
    depth = _depth(planes, polygon, hit, lens)
    return Pixels(planes, polygon, hit, depth, _shade(planes, polygon, hit, lens), extent.count())


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
    """(R, 2) float32 biased 1/z at column 0, and its change per column."""
    total: int

    @staticmethod
    def of(planes: Planes, lens: Lens, chosen: Tensor) -> Spans:
        """The runs of the chosen polygons."""
        rows = planes.rows.index_select(0, chosen)
        count = rows[:, 1]
        total = int(count.sum())
        local = torch.repeat_interleave(count, output_size=total)
        begin = rows[:, 0] - (count.cumsum(0) - count)
        y = torch.arange(total, device=chosen.device) + begin.index_select(0, local)
        polygon = chosen.index_select(0, local)
        slope, offset, floor, ceiling = planes.edge.index_select(0, polygon).unbind(1)
        column = slope * y.to(torch.float32)[:, None] + offset
        low = torch.ceil((column + floor).amax(1).clamp(0, lens.width))
        high = torch.ceil((column + ceiling).amin(1).clamp(0, lens.width))
        keep = (high > low).nonzero()[:, 0]
        polygon, y, low, high = (t.index_select(0, keep) for t in (polygon, y, low, high))
        size = (high - low).to(torch.int64)
        end = size.cumsum(0)
        bias = 1 + DECAL_BIAS * (planes.polygons.kind == DECAL).index_select(0, polygon)
        a, b, c = (planes.inverse_depth.index_select(0, polygon) * bias[:, None]).unbind(1)
        inverse = torch.stack((b * y + c, a), 1)
        amount = int(end[-1]) if len(end) else 0
        return Spans(polygon, y, low.to(torch.int64), size, end - size, inverse, amount)

    def fragments(self, width: int) -> tuple[Tensor, Tensor, Tensor]:
        """(F,) run, (F,) pixel index and (F,) 1/z of every pixel of every run."""
        row = torch.repeat_interleave(self.count, output_size=self.total)
        step = torch.arange(self.total, device=row.device)
        pixel = step + (self.y * width + self.first - self.start).index_select(0, row)
        column = (step + (self.first - self.start).index_select(0, row)).to(torch.float32)
        at_zero, slope = self.inverse.unbind(1)
        inverse = slope.index_select(0, row) * column + at_zero.index_select(0, row)
        return row, pixel, inverse.clamp_min(1e-9)

    def texture_coordinates(
        self, planes: Planes, row: Tensor, pixel: Tensor, inverse: Tensor, width: int
    ) -> tuple[Tensor, Tensor]:
        """(F,) u and v of fragments."""
        y = self.y.to(torch.float32)
        column = (pixel - (self.y * width).index_select(0, row)).to(torch.float32)
        result = []
        for axis in (planes.along, planes.up):
            a, b, c, d = axis.index_select(0, self.polygon).unbind(1)
            numerator = a.index_select(0, row) * column + (b * y + c).index_select(0, row)
            result.append(numerator / inverse + d.index_select(0, row))
        return result[0], result[1]

    def opaque(
        self, planes: Planes, atlas: Atlas, row: Tensor, pixel: Tensor, inverse: Tensor, width: int
    ) -> Tensor:
        """(F,) bool: the texture covers this fragment."""
        u, v = self.texture_coordinates(planes, row, pixel, inverse, width)
        detail = planes.detail.index_select(0, self.polygon).index_select(0, row)
        texture = planes.polygons.texture.index_select(0, self.polygon).index_select(0, row)
        texel = atlas.sample(texture, u, v, detail - 1.5 * torch.log2(inverse))
        return texel[:, 3] >= 128


@dataclass
class Extent:
    """One bit per pixel of every thing's own screen rectangle, set where the thing would be seen."""

    corner: Tensor
    """(things, 2) int64 first column and row of the rectangles."""
    size: Tensor
    """(things, 2) int64 width and height."""
    base: Tensor
    """(things,) int64 where each rectangle begins in `bits`."""
    bits: Tensor
    thing: Tensor
    """(P,) int64 of every polygon."""

    @staticmethod
    def of(groups: Sequence[Spans], thing: Tensor, things: int) -> Extent:
        """Rectangles around all runs of each thing."""
        thing = thing.to(torch.int64)
        owner = torch.cat([thing.index_select(0, s.polygon) for s in groups])
        low = torch.stack(
            [torch.cat([s.first for s in groups]), torch.cat([s.y for s in groups])], 1
        )
        width = torch.cat([s.count for s in groups])
        high = low + torch.stack((width, torch.ones_like(width)), 1)
        index = owner[:, None].expand(-1, 2)
        first = low.new_full((things, 2), 1 << 30).scatter_reduce(0, index, low, 'amin')
        last = low.new_zeros((things, 2)).scatter_reduce(0, index, high, 'amax')
        size = (last - first).clamp_min(0)
        size[0] = 0  # number 0 is everything that is not a thing
        area = size.prod(1)
        end = area.cumsum(0)
        bits = torch.zeros(int(end[-1]) + 1, dtype=torch.uint8, device=thing.device)
        return Extent(first, size, end - area, bits, thing)

    def paint(self, spans: Spans, row: Tensor, pixel: Tensor, width: int) -> None:
        """Set the bits of fragments."""
        owner = self.thing.index_select(0, spans.polygon)
        x0, y0 = self.corner.index_select(0, owner).unbind(1)
        stride = self.size[:, 0].index_select(0, owner)
        offset = self.base.index_select(0, owner) + (spans.y - y0) * stride - x0 - spans.y * width
        offset = torch.where(owner > 0, offset, -(1 << 40))
        index = (pixel + offset.index_select(0, row)).clamp_min(-1)
        self.bits[index] = 1  # -1: the spare last bit

    def count(self) -> Tensor:
        """(things,) int64 number of set bits."""
        total = torch.cat((self.bits.new_zeros(1, dtype=torch.int64), self.bits.cumsum(0)))
        return total[self.base + self.size.prod(1)] - total[self.base]


def pixel_grid(lens: Lens, device: torch.device) -> tuple[Tensor, Tensor]:
    """(N,) float32 column and row of every pixel."""
    y = torch.arange(lens.height, device=device, dtype=torch.float32)
    x = torch.arange(lens.width, device=device, dtype=torch.float32)
    return x.repeat(lens.height), y.repeat_interleave(lens.width)


def _depth(planes: Planes, polygon: Tensor, hit: Tensor, lens: Lens) -> Tensor:
    x, y = pixel_grid(lens, polygon.device)
    a, b, c = planes.inverse_depth.index_select(0, polygon).unbind(1)
    return torch.where(hit, 1 / (a * x + b * y + c).clamp_min(1e-9), torch.inf)


def _shade(planes: Planes, polygon: Tensor, hit: Tensor, lens: Lens) -> Tensor:
    """Shadows lie in the ground, so they apply wherever the ground itself is what a pixel sees."""
    kind = planes.polygons.kind
    shade = torch.ones(len(polygon), device=polygon.device)
    spans = Spans.of(planes, lens, (kind == SHADOW).nonzero()[:, 0])
    row, pixel, inverse = spans.fragments(lens.width)
    on_ground = (kind == GROUND) | (kind == DECAL)
    below = on_ground.index_select(0, polygon) & hit
    keep = below.index_select(0, pixel).nonzero()[:, 0]
    row, pixel, inverse = row[keep], pixel[keep], inverse[keep]
    u, v = spans.texture_coordinates(planes, row, pixel, inverse, lens.width)
    strength, softness = (
        planes.polygons.color[:, i].index_select(0, spans.polygon).index_select(0, row)
        for i in (0, 1)
    )
    inside = torch.minimum(torch.minimum(u, 1 - u), torch.minimum(v, 1 - v)) / softness
    light = 1 - strength * inside.clamp(0, 1)
    return shade.scatter_reduce_(0, pixel, light, 'amin')


def _in_view(corner: Tensor, lens: Lens) -> Tensor:
    x, y, z = corner.unbind(-1)
    u, v = lens.fx * x + lens.u0 * z, lens.fy * y + lens.v0 * z  # pixel times z
    outside = [z < 0, u < 0, u > lens.width * z, v < 0, v > lens.height * z]
    return ~torch.stack([side.all(1) for side in outside]).any(0)


def _texture_axes(
    polygons: Polygons, corner: Tensor, lens: Lens, atlas: Atlas
) -> tuple[Tensor, Tensor, Tensor]:
    """Best affine texture map of each quadrilateral, and its texels per metre."""
    e1 = (corner[:, 1] - corner[:, 0] + corner[:, 2] - corner[:, 3]) / 2
    e2 = (corner[:, 3] - corner[:, 0] + corner[:, 2] - corner[:, 1]) / 2
    length = torch.stack((e1.norm(dim=-1), e2.norm(dim=-1)), 1).clamp_min(1e-6)
    metric = length / atlas.tile_m.index_select(0, polygons.texture)[:, None]
    tiles = torch.where(polygons.repeat > 0, polygons.repeat, metric)
    plane = torch.linalg.cross(e1, e2)
    area = (plane * plane).sum(-1, keepdim=True).clamp_min(1e-12)
    first = corner.mean(1) - (e1 + e2) / 2
    axes = []
    for i, direction in enumerate((torch.linalg.cross(e2, plane), torch.linalg.cross(plane, e1))):
        gradient = direction / area * tiles[:, i : i + 1]
        shift = polygons.origin[:, i] - (gradient * first).sum(-1)
        axes.append(torch.cat((lens.to_pixel(gradient), shift[:, None]), 1))
    density = (SIDE * (tiles / length).amax(1)).clamp_min(1e-6)
    return axes[0], axes[1], density


def _edges(corner: Tensor, facing: Tensor, lens: Lens) -> Tensor:
    """Each edge is the plane through two corners and the optical centre; see `Planes.edge`."""
    head, tail = corner, corner.roll(-1, 1)
    swap = (head[..., 0] > tail[..., 0])[..., None]  # the same plane for both neighbours
    low, high = torch.where(swap, tail, head), torch.where(swap, head, tail)
    turn = torch.where(swap, 1.0, -1.0) * facing[:, None, None]
    plane = torch.linalg.cross(low, high - low) * turn
    a, b, c = lens.to_pixel(plane).unbind(-1)
    real = plane.abs().amax(-1) > 0
    safe = torch.where(a.abs() < 1e-20, 1e-20, a)
    far = 1e30
    slope, offset = torch.where(real, -b / safe, 0.0), torch.where(real, -c / safe, 0.0)
    floor = torch.where(real & (safe > 0), 0.0, -far)
    ceiling = torch.where(real & (safe < 0), 0.0, far)
    return torch.stack((slope, offset, floor, ceiling), 1)


def _rows(corner: Tensor, lens: Lens) -> Tensor:
    z = corner[..., 2]
    y = lens.fy * corner[..., 1] / z.clamp_min(1e-3) + lens.v0
    in_front = z.amin(1) > 1e-2
    low = torch.where(in_front, y.amin(1), 0.0).clamp(0, lens.height)
    high = torch.where(in_front, y.amax(1), float(lens.height)).clamp(0, lens.height)
    first = torch.ceil(low).to(torch.int64)
    return torch.stack((first, (torch.ceil(high).to(torch.int64) - first).clamp_min(0)), 1)
