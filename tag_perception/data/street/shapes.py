"""Solids made of flat quadrilaterals in an object's own frame (x front, y left, z up; metres)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np

from tag_perception.data.street.textures import TEXTURE

Point = Sequence[float] | np.ndarray
Range = tuple[float, float]
METRIC = (0.0, 0.0)
"""Texture repeat that means: as many tiles as the surface is long in metres."""
TYRE = 2
"""Palette slot of rubber and other black parts, the same in all vehicles."""


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

    @cached_property
    def low(self) -> np.ndarray:
        """(3,) smallest coordinates."""
        return self.corner.min((0, 1))

    @cached_property
    def high(self) -> np.ndarray:
        """(3,) largest coordinates."""
        return self.corner.max((0, 1))

    def grounded(self, centred: bool = False) -> Shape:
        """The shape moved onto z = 0 and, if asked, with its box around x = y = 0."""
        shift = (self.low + self.high) / 2 * centred
        shift[2] = self.low[2]
        return replace(self, corner=self.corner - shift)


class Solid:
    """Collects quadrilaterals; `shape()` freezes them."""

    def __init__(self) -> None:
        self._corner: list[np.ndarray] = []
        self._texture: list[int] = []
        self._repeat: list[Range] = []
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
        corners: Sequence[Point] | np.ndarray,
        slot: int,
        texture: str = 'plain',
        repeat: Range = (1.0, 1.0),
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
        repeat: Range = (1.0, 1.0),
        faces: str = 'front back left right top',
    ) -> None:
        """An axis-aligned box without the faces left out."""
        for face in faces.split():
            self.quad(box_face(low, high, face), slot, texture, repeat)

    def panel(
        self, face: str, at: float, across: Range, z: Range, slot: int, texture: str = 'plain'
    ) -> None:
        """An upright rectangle facing front or back at x = at, or left or right at y = at."""
        (a, b), (low, high) = sorted(across), z
        lengthwise = face in ('left', 'right')
        first, second = (
            ((a, at, low), (b, at, high)) if lengthwise else ((at, a, low), (at, b, high))
        )
        self.quad(box_face(first, second, face), slot, texture)

    def pair(
        self, face: str, at: float, across: Range, z: Range, slot: int, texture: str = 'plain'
    ) -> None:
        """Two panels mirrored at y = 0: lamps at a front, windows along both sides."""
        if face == 'sides':
            self.panel('left', at, across, z, slot, texture)
            self.panel('right', -at, across, z, slot, texture)
        else:
            self.panel(face, at, across, z, slot, texture)
            self.panel(face, at, (-across[1], -across[0]), z, slot, texture)

    def hull(self, stations: Sequence[Point], sill: float, slot: int) -> None:
        """A vehicle body: at each station (x, half width, top z) walls from the sill and a lid."""
        middle = (sum(s[0] for s in stations) / len(stations), 0.0, (sill + stations[0][2]) / 2)
        for (xa, wa, za), (xb, wb, zb) in pairwise(stations):
            for side in (1, -1):
                low = ((xa, side * wa, sill), (xb, side * wb, sill))
                self.quad((*low, (xb, side * wb, zb), (xa, side * wa, za)), slot, away_from=middle)
            lid = ((xa, wa, za), (xa, -wa, za), (xb, -wb, zb), (xb, wb, zb))
            self.quad(lid, slot, away_from=middle)
        for x, w, z in (stations[0], stations[-1]):
            cap = ((x, w, sill), (x, -w, sill), (x, -w, z), (x, w, z))
            self.quad(cap, slot, away_from=middle)

    def prism(
        self,
        start: Point,
        end: Point,
        radii: Range,
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
        angle = (np.arange(sides + 1) + 0.5) * 2 * math.pi / sides
        ring = np.cos(angle)[:, None] * across + np.sin(angle)[:, None] * np.cross(axis, across)
        ring[:, 0] *= flatten
        low, high, inside = a + radii[0] * ring, b + radii[1] * ring, (a + b) / 2
        for i in range(sides):
            wall = (low[i], low[i + 1], high[i + 1], high[i])
            self.quad(wall, slot, texture, (1 / sides, 1), away_from=inside)
        for center, rim in ((a, low), (b, high)):
            for i in range(0, sides, 2):
                fan = (center, rim[i], rim[i + 1], rim[(i + 2) % sides])
                self.quad(fan, slot, texture, (0.3, 0.3), away_from=inside)

    def ball(
        self,
        center: Point,
        radii: Point,
        slot: int,
        back_slot: int | None = None,
        split_z: float = 0.15,
        sides: int = 8,
        rings: int = 4,
    ) -> None:
        """An ellipsoid; what lies behind or above `split_z` takes `back_slot` (hair, helmet)."""
        c, r = np.asarray(center, float), np.asarray(radii, float)
        latitude = np.linspace(-math.pi / 2, math.pi / 2, rings + 1)
        longitude = (np.arange(sides + 1) + 0.5) * 2 * math.pi / sides
        for la, lb in pairwise(latitude):
            for oa, ob in pairwise(longitude):
                corners = ((la, oa), (la, ob), (lb, ob), (lb, oa))
                unit = np.array([
                    (math.cos(t) * math.cos(o), math.cos(t) * math.sin(o), math.sin(t))
                    for t, o in corners
                ])  # fmt: skip
                x, _, z = unit.mean(0)
                behind = back_slot is not None and (x < -0.05 or z > split_z + 0.3 * x)
                self.quad(c + r * unit, back_slot if behind else slot, away_from=c)  # type: ignore[arg-type]

    def wheels(
        self,
        xs: Iterable[float],
        y_out: float,
        radius: float,
        width: float,
        slot: int,
        texture: str = 'wheel',
    ) -> None:
        """Pairs of wheels on z = 0 whose outer faces lie at y = ±y_out."""
        for x in xs:
            self.pair('sides', y_out, (x - radius, x + radius), (0.0, 2 * radius), slot, texture)
            for side in (y_out, -y_out):
                hub, inner = side * (1 - 0.01 / y_out), side * (1 - width / y_out)
                tread = (radius * 0.98, radius * 0.98)
                self.prism((x, inner, radius), (x, hub, radius), tread, TYRE, sides=10)


def box_face(low: Point, high: Point, face: str) -> list[tuple[float, float, float]]:
    """Four corners of one face of a box, bottom left first seen from outside."""
    (x0, y0, z0), (x1, y1, z1) = low, high
    return {
        'front': [(x1, y0, z0), (x1, y1, z0), (x1, y1, z1), (x1, y0, z1)],
        'back': [(x0, y1, z0), (x0, y0, z0), (x0, y0, z1), (x0, y1, z1)],
        'left': [(x1, y1, z0), (x0, y1, z0), (x0, y1, z1), (x1, y1, z1)],
        'right': [(x0, y0, z0), (x1, y0, z0), (x1, y0, z1), (x0, y0, z1)],
        'top': [(x0, y0, z1), (x1, y0, z1), (x1, y1, z1), (x0, y1, z1)],
    }[face]
