"""Textured quadrilaterals in the world → planes, edges and texture maps in pixel coordinates."""

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


@dataclass(frozen=True)
class Polygons:
    """P textured quadrilaterals in world coordinates, on one device."""

    corner: Tensor
    """(4, 3, P) float32 metres."""
    texture: Tensor
    """(P,) int32 index into the atlas."""
    repeat: Tensor
    """(2, P) float32 tiles along and up; 0: metric."""
    origin: Tensor
    """(2, P) float32 texture coordinates of the first corner."""
    color: Tensor
    """(4, P) float32 R, G, B and glow (own light); of a SHADOW its strength and softness."""
    thing: Tensor
    """(P,) int32 number of the vehicle or person it belongs to, 0 for everything else."""
    label: Tensor
    """(P,) int32 Cityscapes label id."""
    kind: Tensor
    """(P,) int32 ORDINARY, GROUND, DECAL or SHADOW."""

    def select(self, index: Tensor) -> Polygons:
        """The polygons that an index tensor selects."""
        return Polygons(*(getattr(self, f.name).index_select(-1, index) for f in fields(self)))

    @staticmethod
    def cat(parts: Sequence[Polygons]) -> Polygons:
        """One list after the other."""
        names = [f.name for f in fields(Polygons)]
        return Polygons(*(torch.cat([getattr(p, name) for p in parts], -1) for name in names))


@dataclass(frozen=True)
class Lens:
    """A pinhole at a place in the world: all that the rasteriser needs to know of a camera."""

    height: int
    width: int
    fx: float
    fy: float
    u0: float
    v0: float
    rotation: tuple[tuple[float, float, float], ...]
    """World axes → S, three rows."""
    position: tuple[float, float, float]
    """Optical centre in the world."""

    def to_pixel(self, x: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """a, b, c with (x, y, z) · ray = a px + b py + c for the ray through (px, py)."""
        a, b = x * (1 / self.fx), y * (1 / self.fy)
        return a, b, z - a * self.u0 - b * self.v0

    def grid(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """(H W,) float32 column and row of every pixel."""
        y = torch.arange(self.height, device=device, dtype=torch.float32)
        x = torch.arange(self.width, device=device, dtype=torch.float32)
        return x.repeat(self.height), y.repeat_interleave(self.width)


@dataclass(frozen=True)
class Planes:
    """The polygons that the camera may see, as planes and edges in pixel coordinates."""

    polygons: Polygons
    normal: Tensor
    """(3, P) unit world normal towards the camera."""
    inverse_depth: Tensor
    """(3, P) a, b, c with 1/z = a px + b py + c."""
    along: Tensor
    """(4, P) a, b, c, d with the texture coordinate u = z (a px + b py + c) + d."""
    up: Tensor
    """(4, P) the same for v."""
    detail: Tensor
    """(P,) the mip level of the texture is detail + 1.5 log2 z."""
    edge: Tensor
    """(4, 4, P) slope, offset, floor, ceiling of each edge: in row y it bounds the columns by
    slope y + offset, from below if floor is 0, from above if ceiling is 0 (else ∓ infinity)."""
    rows: Tensor
    """(2, P) int64 first row and number of rows."""

    def depth(self, polygon: Tensor, hit: Tensor, lens: Lens, elsewhere: float) -> Tensor:
        """(H W,) z of S where each pixel's ray meets its polygon; `elsewhere` if it hits none."""
        x, y = lens.grid(polygon.device)
        a, b, c = self.inverse_depth.index_select(1, polygon)
        inverse = (a * x + b * y + c) * hit
        return inverse.clamp_min_(1 / elsewhere).reciprocal_()


Triple = tuple[Tensor, Tensor, Tensor]


def project(polygons: Polygons, lens: Lens, atlas: Atlas) -> Planes:
    """Drop what cannot be seen and set up edges, planes and texture coordinates."""
    corner = _to_optical(polygons.corner, lens)
    normal = _cross(_minus(corner, 2, 0), _minus(corner, 3, 1))
    distance = _dot(normal, tuple(c.mean(0) for c in corner))
    two_sided = atlas.cutout.index_select(0, polygons.texture) | (polygons.kind == SHADOW)
    visible = _in_view(corner, lens) & (two_sided | (distance < 0)) & (distance != 0)
    keep = visible.nonzero()[:, 0]
    if len(keep) == 0:  # one polygon without rows saves every later step the special case
        keep = keep.new_zeros(1)
    polygons = polygons.select(keep)
    corner = tuple(c.index_select(1, keep) for c in corner)  # type: ignore[assignment]
    normal = tuple(n.index_select(0, keep) for n in normal)  # type: ignore[assignment]
    distance = distance.index_select(0, keep)
    facing = -torch.sign(distance)
    length = torch.sqrt(_dot(normal, normal))
    unit = torch.stack(normal) * (facing / length)
    r = lens.rotation
    world = [r[0][j] * unit[0] + r[1][j] * unit[1] + r[2][j] * unit[2] for j in range(3)]
    inverse = lens.to_pixel(*(n / distance for n in normal))
    along, up, density = _texture_axes(polygons, corner, lens, atlas)
    reach = (distance.abs() / length).clamp_min(1e-3)
    rows = _rows(corner, lens) * visible.index_select(0, keep)
    detail = torch.log2(density * torch.rsqrt(reach)) - math.log2(lens.fx)
    return Planes(
        polygons, torch.stack(world), torch.stack(inverse), along, up, detail,
        _edges(corner, facing, lens), rows,
    )  # fmt: skip


def _to_optical(corner: Tensor, lens: Lens) -> Triple:
    """x, y, z (4, P) in S, term by term: equal corners stay equal to the last bit."""
    x, y, z = (corner[:, i] - lens.position[i] for i in range(3))
    return tuple(r[0] * x + r[1] * y + r[2] * z for r in lens.rotation)  # type: ignore[return-value]


def _minus(corner: Triple, end: int, start: int) -> Triple:
    return tuple(c[end] - c[start] for c in corner)  # type: ignore[return-value]


def _cross(a: Triple, b: Triple) -> Triple:
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


def _dot(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _in_view(corner: Triple, lens: Lens) -> Tensor:
    x, y, z = corner
    u, v = lens.fx * x + lens.u0 * z, lens.fy * y + lens.v0 * z  # pixel times z
    inside = (z.amax(0) > 0) & (u.amax(0) > 0) & (v.amax(0) > 0)
    return inside & ((u - lens.width * z).amin(0) < 0) & ((v - lens.height * z).amin(0) < 0)


def _texture_axes(
    polygons: Polygons, corner: Triple, lens: Lens, atlas: Atlas
) -> tuple[Tensor, Tensor, Tensor]:
    """Best affine texture map of each quadrilateral, and its texels per metre."""
    e1 = tuple((c[1] - c[0] + c[2] - c[3]) * 0.5 for c in corner)
    e2 = tuple((c[3] - c[0] + c[2] - c[1]) * 0.5 for c in corner)
    length = torch.stack((_dot(e1, e1), _dot(e2, e2))).sqrt().clamp_min(1e-6)
    metric = length / atlas.tile_m.index_select(0, polygons.texture)
    tiles = torch.where(polygons.repeat > 0, polygons.repeat, metric)
    plane = _cross(e1, e2)  # type: ignore[arg-type]
    scale = tiles / _dot(plane, plane).clamp_min(1e-12)
    first = tuple(c.mean(0) - (a + b) / 2 for c, a, b in zip(corner, e1, e2, strict=True))
    axes = []
    for i, direction in enumerate((_cross(e2, plane), _cross(plane, e1))):  # type: ignore[arg-type]
        gradient = tuple(d * scale[i] for d in direction)
        shift = polygons.origin[i] - _dot(gradient, first)
        axes.append(torch.stack((*lens.to_pixel(*gradient), shift)))
    return axes[0], axes[1], (SIDE * (tiles / length).amax(0)).clamp_min(1e-6)


def _edges(corner: Triple, facing: Tensor, lens: Lens) -> Tensor:
    """Each edge is the plane through two corners and the optical centre; see `Planes.edge`."""
    tail = tuple(c.roll(-1, 0) for c in corner)
    swap = corner[0] > tail[0]  # the same plane, to the last bit, for both neighbours
    low = tuple(torch.where(swap, t, c) for c, t in zip(corner, tail, strict=True))
    high = tuple(torch.where(swap, c, t) for c, t in zip(corner, tail, strict=True))
    turn = torch.where(swap, facing, -facing)
    plane = _cross(low, tuple(h - w for h, w in zip(high, low, strict=True)))  # type: ignore[arg-type]
    a, b, c = lens.to_pixel(*(p * turn for p in plane))
    real = (plane[0] != 0) | (plane[1] != 0) | (plane[2] != 0)
    safe = torch.where(a.abs() < 1e-20, 1e-20, a)
    far = 1e30
    return torch.stack((
        -b / safe * real,
        -c / safe * real,
        torch.where(real & (safe > 0), 0.0, -far),
        torch.where(real & (safe < 0), 0.0, far),
    ))  # fmt: skip


def _rows(corner: Triple, lens: Lens) -> Tensor:
    z = corner[2]
    y = lens.fy * corner[1] / z.clamp_min(1e-3) + lens.v0
    in_front = z.amin(0) > 1e-2
    low = (y.amin(0) * in_front).clamp(0, lens.height)
    high = torch.where(in_front, y.amax(0), float(lens.height)).clamp(0, lens.height)
    first = low.ceil()
    return torch.stack((first, (high.ceil() - first).clamp_min(0))).to(torch.int64)
