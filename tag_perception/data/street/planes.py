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

    def to_pixel(self, direction: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """a, b, c with (x, y, z) · ray = a px + b py + c for the ray through (px, py)."""
        x, y, z = direction
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


def project(polygons: Polygons, lens: Lens, atlas: Atlas) -> Planes:
    """Drop what cannot be seen and set up edges, planes and texture coordinates."""
    corner = _to_optical(polygons.corner, lens)
    normal = _cross(corner[:, 2] - corner[:, 0], corner[:, 3] - corner[:, 1])
    distance = _dot(normal, corner.mean(1))
    two_sided = atlas.cutout.index_select(0, polygons.texture) | (polygons.kind == SHADOW)
    visible = _in_view(corner, lens) & (two_sided | (distance < 0)) & (distance != 0)
    keep = visible.nonzero()[:, 0]
    if len(keep) == 0:  # one polygon without rows saves every later step the special case
        keep = keep.new_zeros(1)
    polygons = polygons.select(keep)
    corner, normal = corner.index_select(2, keep), normal.index_select(1, keep)
    distance = distance.index_select(0, keep)
    facing = -torch.sign(distance)
    length = torch.sqrt(_dot(normal, normal))
    turns = _axes(lens, keep.device).T[..., None] * (normal * (facing / length))
    along, up, density = _texture_axes(polygons, corner, lens, atlas)
    reach = (distance.abs() / length).clamp_min(1e-3)
    rows = _rows(corner, lens) * visible.index_select(0, keep)
    detail = torch.log2(density * torch.rsqrt(reach)) - math.log2(lens.fx)
    return Planes(
        polygons,
        normal=_sum(turns.unbind(1)),
        inverse_depth=torch.stack(lens.to_pixel(normal / distance)),
        along=along,
        up=up,
        detail=detail,
        edge=_edges(corner, facing, lens),
        rows=rows,
    )


def _axes(lens: Lens, device: torch.device) -> Tensor:
    """(3, 3) world axes → S."""
    return torch.tensor(lens.rotation).to(device)


def _to_optical(corner: Tensor, lens: Lens) -> Tensor:
    """(3, 4, P) in S, term by term: equal corners stay equal to the last bit."""
    moved = corner.transpose(0, 1) - torch.tensor(lens.position).to(corner.device)[:, None, None]
    turned = _axes(lens, corner.device)[..., None, None] * moved
    return _sum(turned.unbind(1))


def _cross(a: Tensor, b: Tensor) -> Tensor:
    """(3, …) cross product. Not torch's, which may round its two products as one."""
    a, b = torch.cat((a, a[:2])), torch.cat((b, b[:2]))
    return a[1:4] * b[2:5] - a[2:5] * b[1:4]


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """(…) of two (3, …)."""
    return _sum((a * b).unbind(0))


def _sum(terms: Sequence[Tensor]) -> Tensor:
    return terms[0] + terms[1] + terms[2]


def _in_view(corner: Tensor, lens: Lens) -> Tensor:
    x, y, z = corner
    u, v = lens.fx * x + lens.u0 * z, lens.fy * y + lens.v0 * z  # pixel times z
    inside = (z.amax(0) > 0) & (u.amax(0) > 0) & (v.amax(0) > 0)
    return inside & ((u - lens.width * z).amin(0) < 0) & ((v - lens.height * z).amin(0) < 0)


def _texture_axes(
    polygons: Polygons, corner: Tensor, lens: Lens, atlas: Atlas
) -> tuple[Tensor, Tensor, Tensor]:
    """Best affine texture map of each quadrilateral, and its texels per metre."""
    c = corner.unbind(1)
    e1, e2 = (c[1] - c[0] + c[2] - c[3]) * 0.5, (c[3] - c[0] + c[2] - c[1]) * 0.5
    sides = torch.stack((e1, e2), 1)
    length = _dot(sides, sides).sqrt().clamp_min(1e-6)  # (2, P)
    metric = length / atlas.tile_m.index_select(0, polygons.texture)
    tiles = torch.where(polygons.repeat > 0, polygons.repeat, metric)
    plane = _cross(e1, e2)
    scale = tiles / _dot(plane, plane).clamp_min(1e-12)
    first = corner.mean(1) - (e1 + e2) / 2
    gradient = _cross(torch.stack((e2, plane), 1), torch.stack((plane, e1), 1)) * scale
    shift = polygons.origin - _dot(gradient, first[:, None])
    along, up = torch.stack((*lens.to_pixel(gradient), shift), 1)
    return along, up, (SIDE * (tiles / length).amax(0)).clamp_min(1e-6)


def _edges(corner: Tensor, facing: Tensor, lens: Lens) -> Tensor:
    """Each edge is the plane through two corners and the optical centre; see `Planes.edge`."""
    tail = corner.roll(-1, 1)
    swap = corner[0] > tail[0]  # the same plane, to the last bit, for both neighbours
    low, high = torch.where(swap, tail, corner), torch.where(swap, corner, tail)
    plane = _cross(low, high - low)
    a, b, c = lens.to_pixel(plane * torch.where(swap, facing, -facing))
    real = (plane != 0).any(0)
    safe = torch.where(a.abs() < 1e-20, 1e-20, a)
    far = 1e30
    return torch.stack((
        -b / safe * real,
        -c / safe * real,
        torch.where(real & (safe > 0), 0.0, -far),
        torch.where(real & (safe < 0), 0.0, far),
    ))  # fmt: skip


def _rows(corner: Tensor, lens: Lens) -> Tensor:
    z = corner[2]
    y = lens.fy * corner[1] / z.clamp_min(1e-3) + lens.v0
    in_front = z.amin(0) > 1e-2
    low = (y.amin(0) * in_front).clamp(0, lens.height)
    high = torch.where(in_front, y.amax(0), float(lens.height)).clamp(0, lens.height)
    first = low.ceil()
    return torch.stack((first, (high.ceil() - first).clamp_min(0))).to(torch.int64)
