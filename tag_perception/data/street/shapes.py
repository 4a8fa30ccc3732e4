"""Solids made of flat quadrilaterals in an object's own frame (x front, y left, z up; metres)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tag_perception.data.street.textures import TEXTURE

Point = Sequence[float]
METRIC = (0.0, 0.0)
"""Texture repeat that means: as many tiles as the surface is long in metres."""


@dataclass(frozen=True)
class Shape:
    """K quadrilaterals with their appearance; colours come from the palette of each placement."""

    corner: np.ndarray
    """(K, 4, 3) float32, anticlockwise seen from outside, bottom left first where that exists."""
    texture: np.ndarray
    """(K,) int64 index into the atlas."""
    repeat: np.ndarray
    """(K, 2) float32 texture tiles along and up the quadrilateral, 0 for metric."""
    slot: np.ndarray
    """(K,) int64 palette slot."""

    @property
    def low(self) -> np.ndarray:
        """(3,) smallest coordinates."""
        return self.corner.min((0, 1))

    @property
    def high(self) -> np.ndarray:
        """(3,) largest coordinates."""
        return self.corner.max((0, 1))


class Solid:
    """Collects quadrilaterals; `shape()` freezes them."""

    def __init__(self) -> None:
        self._corner: list[np.ndarray] = []
        self._texture: list[int] = []
        self._repeat: list[tuple[float, float]] = []
        self._slot: list[int] = []

    def shape(self) -> Shape:
        """Everything added so far."""
        return Shape(
            np.stack(self._corner).astype(np.float32),
            np.array(self._texture, np.int64),
            np.array(self._repeat, np.float32),
            np.array(self._slot, np.int64),
        )

    def quad(
        self,
        corners: Sequence[Point],
        slot: int,
        texture: str = 'plain',
        repeat: tuple[float, float] = (1.0, 1.0),
        away_from: Point | None = None,
    ) -> None:
        """One quadrilateral (three corners: a triangle), turned away from a point inside."""
        points = np.array(corners if len(corners) == 4 else [*corners, corners[2]], float)
        if away_from is not None:
            normal = np.cross(points[2] - points[0], points[3] - points[1])
            if normal @ (points.mean(0) - np.asarray(away_from)) < 0:
                points = points[[1, 0, 3, 2]]
        self._corner.append(points)
        self._texture.append(TEXTURE[texture])
        self._repeat.append(repeat)
        self._slot.append(slot)

    def box(
        self,
        low: Point,
        high: Point,
        slot: int,
        texture: str = 'plain',
        repeat: tuple[float, float] = (1.0, 1.0),
        faces: str = 'front back left right top',
    ) -> None:
        """An axis-aligned box without the faces left out."""
        for face in faces.split():
            self.quad(box_face(low, high, face), slot, texture, repeat)

    def hull(
        self, stations: Sequence[Point], sill: float, slot: int, rear_slot: int | None = None
    ) -> None:
        """A vehicle body: at each station (x, half width, top z) a wall from the sill and a lid."""
        middle = (np.mean([s[0] for s in stations]), 0.0, (sill + stations[0][2]) / 2)
        for (xa, wa, za), (xb, wb, zb) in zip(stations[:-1], stations[1:], strict=True):
            for side in (1, -1):
                wall = (
                    (xa, side * wa, sill),
                    (xb, side * wb, sill),
                    (xb, side * wb, zb),
                    (xa, side * wa, za),
                )
                self.quad(wall, slot, away_from=middle)
            lid = ((xa, wa, za), (xa, -wa, za), (xb, -wb, zb), (xb, wb, zb))
            self.quad(lid, slot, away_from=middle)
        for x, w, z in (stations[0], stations[-1]):
            cap = ((x, w, sill), (x, -w, sill), (x, -w, z), (x, w, z))
            self.quad(cap, slot, away_from=middle)

    def prism(
        self,
        start: Point,
        end: Point,
        radii: tuple[float, float],
        slot: int,
        texture: str = 'plain',
        sides: int = 6,
        flatten: float = 1.0,
    ) -> None:
        """A tapering limb, pole or tube between two points; `flatten` squeezes it along x."""
        a, b = np.asarray(start, float), np.asarray(end, float)
        axis = (b - a) / max(float(np.linalg.norm(b - a)), 1e-9)
        across = np.cross(axis, (1.0, 0.0, 0.0) if abs(axis[0]) < 0.9 else (0.0, 0.0, 1.0))
        across /= np.linalg.norm(across)
        other = np.cross(axis, across)
        angle = (np.arange(sides + 1) + 0.5) * 2 * math.pi / sides
        ring = np.cos(angle)[:, None] * across + np.sin(angle)[:, None] * other
        ring[:, 0] *= flatten
        low, high = a + radii[0] * ring, b + radii[1] * ring
        for i in range(sides):
            quad = (low[i], low[i + 1], high[i + 1], high[i])
            self.quad(quad, slot, texture, (1 / sides, 1), away_from=(a + b) / 2)
        for center, rim in ((a, low), (b, high)):
            for i in range(0, sides, 2):
                fan = (center, rim[i], rim[i + 1], rim[(i + 2) % sides])
                self.quad(fan, slot, texture, (0.3, 0.3), away_from=(a + b) / 2)

    def ball(
        self, center: Point, radii: Point, slot: int, sides: int = 8, rings: int = 4,
        back_slot: int | None = None, split_z: float = 0.15,
    ) -> None:  # fmt: skip
        """An ellipsoid; quads behind and above take `back_slot` (hair on a head)."""
        c, r = np.asarray(center, float), np.asarray(radii, float)
        lat = np.linspace(-math.pi / 2, math.pi / 2, rings + 1)
        lon = np.arange(sides + 1) * 2 * math.pi / sides + math.pi / sides
        for la, lb in zip(lat[:-1], lat[1:], strict=True):
            for oa, ob in zip(lon[:-1], lon[1:], strict=True):
                unit = np.array([
                    (math.cos(t) * math.cos(o), math.cos(t) * math.sin(o), math.sin(t))
                    for t, o in ((la, oa), (la, ob), (lb, ob), (lb, oa))
                ])  # fmt: skip
                mean = unit.mean(0)
                behind = mean[0] < -0.05 or mean[2] > split_z + 0.3 * mean[0]
                use = back_slot if back_slot is not None and behind else slot
                self.quad(c + r * unit, use, away_from=c)

    def wheel(
        self,
        x: float,
        y_out: float,
        radius: float,
        width: float,
        slot: int,
        texture: str = 'wheel',
    ) -> None:
        """A wheel standing on z = 0 whose outer face lies at y = y_out."""
        side = 1.0 if y_out > 0 else -1.0
        low, high = (x - radius, y_out, 0.0), (x + radius, y_out, 2 * radius)
        self.quad(box_face(low, high, 'left' if side > 0 else 'right'), slot, texture)
        hub, inner = (x, y_out - side * 0.01, radius), (x, y_out - side * width, radius)
        self.prism(inner, hub, (radius * 0.98, radius * 0.98), TYRE, sides=10)


TYRE = 2
"""Palette slot of rubber and other black parts, the same in all vehicles."""


def box_face(low: Point, high: Point, face: str) -> list[Point]:
    """Four corners of one face of a box, bottom left first seen from outside."""
    (x0, y0, z0), (x1, y1, z1) = low, high
    return {
        'front': [(x1, y0, z0), (x1, y1, z0), (x1, y1, z1), (x1, y0, z1)],
        'back': [(x0, y1, z0), (x0, y0, z0), (x0, y0, z1), (x0, y1, z1)],
        'left': [(x1, y1, z0), (x0, y1, z0), (x0, y1, z1), (x1, y1, z1)],
        'right': [(x0, y0, z0), (x1, y0, z0), (x1, y0, z1), (x0, y0, z1)],
        'top': [(x0, y0, z1), (x1, y0, z1), (x1, y1, z1), (x0, y1, z1)],
    }[face]  # type: ignore[return-value]
