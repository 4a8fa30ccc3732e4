"""The ground: a street with curves, grades, cross-fall, kerbs and side streets, and its markings.

Street coordinates are s along the ego lane and d to the left of it, metres. All heights and curves
are linear between the knots of one grid, so marks, shadows and wheels lie exactly on the mesh.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tag_perception.core.labels import LABEL_BY_NAME
from tag_perception.data.street.dice import Dice
from tag_perception.data.street.planes import DECAL, GROUND
from tag_perception.data.street.textures import TEXTURE, TILE_M

STEP_M = 2.5
"""Distance of the grid's knots."""
FIRST_M, LAST_M = -30.0, 230.0
KNOTS = np.arange(FIRST_M, LAST_M + 1e-6, STEP_M)
CELLS = len(KNOTS) - 1
"""Pieces of the grid between knots."""
OUTER_M = 70.0
"""The ground reaches this far to both sides."""
KERB_M = 0.13


class Cover(NamedTuple):
    """What a piece of ground is made of."""

    label: str
    texture: str
    color: tuple[float, float, float]


@dataclass(frozen=True)
class Strip:
    """A lengthwise strip of ground from d_low (right) to d_high (left)."""

    d_low: float
    d_high: float
    z_low: float
    z_high: float
    cover: Cover

    @property
    def label(self) -> str:
        """Cityscapes class name."""
        return self.cover.label

    @property
    def color(self) -> tuple[float, float, float]:
        """R, G, B."""
        return self.cover.color

    def mirrored(self) -> Strip:
        """The same strip on the other side of d = 0."""
        return Strip(-self.d_high, -self.d_low, self.z_high, self.z_low, self.cover)


@dataclass(frozen=True)
class Road:
    """The shape of one street."""

    strips: tuple[Strip, ...]
    x: np.ndarray
    """(knots,) centreline in the world, likewise y, z."""
    y: np.ndarray
    z: np.ndarray
    direction: np.ndarray
    """(knots,) heading, radians."""
    fall: np.ndarray
    """(knots,) cross-fall dz/dd."""
    lift: np.ndarray
    """(knots,) 0 inside side streets, where kerbs and verges sink to the carriageway, else 1."""
    side_streets: tuple[tuple[float, float], ...]

    def heading(self, s: np.ndarray) -> np.ndarray:
        """Direction of the street at s, radians."""
        return np.interp(s, KNOTS, self.direction)

    def height(self, d: np.ndarray) -> np.ndarray:
        """Height of the profile above the carriageway at d."""
        ends = np.array([(p.d_low, p.d_high, p.z_low, p.z_high) for p in self.strips])
        return np.interp(d, ends[:, :2].ravel(), ends[:, 2:].ravel())

    def point(self, s: np.ndarray, d: np.ndarray, height: np.ndarray | None = None) -> np.ndarray:
        """(…, 3) the ground at s, d; `height` of the profile if it is known already."""
        s, d = np.broadcast_arrays(np.asarray(s, float), np.asarray(d, float))
        index = np.clip(((s - FIRST_M) / STEP_M).astype(int), 0, len(KNOTS) - 2)
        weight = (s - KNOTS[index]) / STEP_M
        rise = self.height(d) if height is None else height
        corners = [self.knot(index + i, d, rise) for i in (0, 1)]
        return corners[0] + weight[..., None] * (corners[1] - corners[0])

    def knot(self, index: np.ndarray, d: np.ndarray, rise: np.ndarray) -> np.ndarray:
        """(…, 3) points of the grid line `index` at d, `rise` above the carriageway."""
        direction = self.direction[index]
        z = self.z[index] + self.fall[index] * d + rise * self.lift[index]
        return np.stack(
            (self.x[index] - d * np.sin(direction), self.y[index] + d * np.cos(direction), z), -1
        )

    def tangents(
        self, s: np.ndarray, d: np.ndarray, reach: np.ndarray, half: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Point, unit tangents along and across, from the ground at s ± reach and d ± half."""
        ahead = self.point(
            np.stack((s + reach, s - reach, s, s)), np.stack((d, d, d + half, d - half))
        )
        along, left = ahead[0] - ahead[1], ahead[2] - ahead[3]
        along /= np.linalg.norm(along, axis=-1, keepdims=True)
        left -= (left * along).sum(-1, keepdims=True) * along
        left /= np.linalg.norm(left, axis=-1, keepdims=True)
        return ahead.mean(0), along, left

    def in_side_street(self, s: float, margin: float = 0.0) -> bool:
        """Whether s lies in the mouth of a side street."""
        return any(a - margin < s < b + margin for a, b in self.side_streets)


def bend(
    dice: Dice, strips: tuple[Strip, ...], side_streets: tuple[tuple[float, float], ...]
) -> Road:
    """A road of these strips with random curvature, grade and cross-fall."""
    s = KNOTS
    strength = dice.weighted({0.0: 0.35, 0.3: 0.4, 1.0: 0.25})
    curvature = strength * dice.uniform(-1, 1) / 110 * _wave(dice, 120, 400)
    direction = np.cumsum(curvature) * STEP_M
    slope = dice.weighted({0.0: 0.3, 0.4: 0.4, 1.0: 0.3})
    grade = dice.uniform(-0.05, 0.05) + dice.uniform(-0.05, 0.05) * _wave(dice, 130, 420)
    fall = slope * (dice.uniform(-0.035, 0.035) + 0.01 * _wave(dice, 230, 240))
    direction -= np.interp(0.0, s, direction)
    x, y = (np.cumsum(f(direction)) * STEP_M for f in (np.cos, np.sin))
    z = np.cumsum(slope * grade) * STEP_M
    x, y, z = (values - np.interp(0.0, s, values) for values in (x, y, z))
    lift = np.ones_like(s)
    for a, b in side_streets:
        lift[(s > a - 1e-6) & (s < b + 1e-6)] = 0.0
    return Road(strips, x, y, z, direction, fall, lift, side_streets)


def _wave(dice: Dice, shortest: float, longest: float) -> np.ndarray:
    """(knots,) a cosine along the street."""
    return np.cos(2 * math.pi * (KNOTS / dice.uniform(shortest, longest) + dice.random()))


@dataclass(frozen=True)
class Patches:
    """Rectangles of ground in street coordinates, ready to become polygons."""

    corner: np.ndarray
    """(K, 4, 3) world."""
    texture: np.ndarray
    repeat: np.ndarray
    origin: np.ndarray
    color: np.ndarray
    """(K, 3)"""
    label: np.ndarray
    kind: np.ndarray


def surface(road: Road, cover: dict[tuple[int, int], Cover]) -> Patches:
    """The mesh; `cover` gives the (knot, strip) cells that differ from their strip."""
    rows, columns = len(KNOTS) - 1, len(road.strips)
    cells = [[strip.cover for strip in road.strips] for _ in range(rows)]
    for (row, column), kind in cover.items():
        cells[row][column] = kind
    flat = [kind for row in cells for kind in row]
    label = np.array([LABEL_BY_NAME[kind.label].id for kind in flat])
    texture = np.array([TEXTURE[kind.texture] for kind in flat])
    d = np.array([(p.d_low, p.d_high) for p in road.strips])  # (J, 2)
    z = np.array([(p.z_low, p.z_high) for p in road.strips])
    shape = (len(KNOTS), columns, 2)
    knots = np.broadcast_to(np.arange(len(KNOTS))[:, None, None], shape)
    grid = road.knot(knots, np.broadcast_to(d, shape), np.broadcast_to(z, shape))
    corner = np.stack((grid[:-1, :, 0], grid[1:, :, 0], grid[1:, :, 1], grid[:-1, :, 1]), 2)
    tile = TILE_M[texture].reshape(rows, columns)
    repeat = np.stack((STEP_M / tile, (d[:, 1] - d[:, 0]) / tile), -1)
    origin = np.stack((KNOTS[:-1, None] / tile, d[:, 0] / tile), -1)
    return Patches(
        corner=corner.reshape(-1, 4, 3),
        texture=texture,
        repeat=repeat.reshape(-1, 2),
        origin=origin.reshape(-1, 2),
        color=np.array([kind.color for kind in flat]),
        label=label,
        kind=np.full(rows * columns, GROUND),
    )


def marks(road: Road, rectangles: np.ndarray, texture: str, color: np.ndarray) -> Patches:
    """Paint (K, 4) rectangles s0, s1, d0, d1 on the carriageway, cut at the knots of the mesh."""
    first = np.floor((rectangles[:, 0] - FIRST_M) / STEP_M).astype(int)
    last = np.ceil((rectangles[:, 1] - FIRST_M) / STEP_M).astype(int)
    count = np.maximum(last - first, 1)
    owner = np.repeat(np.arange(len(rectangles)), count)
    cell = np.arange(count.sum()) - np.repeat(count.cumsum() - count, count) + first[owner]
    begin = FIRST_M + cell * STEP_M
    s0 = np.maximum(rectangles[owner, 0], begin)
    s1 = np.minimum(rectangles[owner, 1], begin + STEP_M)
    d0, d1 = rectangles[owner, 2], rectangles[owner, 3]
    flat = np.zeros_like(s0)
    corner = np.stack(
        [road.point(a, b, flat) for a, b in ((s0, d0), (s1, d0), (s1, d1), (s0, d1))], 1
    )
    count, whole = len(owner), texture == 'disc'  # a manhole cover is painted as a whole
    tile = TILE_M[TEXTURE[texture]]
    return Patches(
        corner=corner,
        texture=np.full(count, TEXTURE[texture]),
        repeat=np.ones((count, 2)) if whole else np.stack((s1 - s0, d1 - d0), 1) / tile,
        origin=np.zeros((count, 2)) if whole else np.stack((s0, d0), 1) / tile,
        color=np.broadcast_to(color, (count, 3)),
        label=np.full(count, LABEL_BY_NAME['road'].id),
        kind=np.full(count, DECAL),
    )
