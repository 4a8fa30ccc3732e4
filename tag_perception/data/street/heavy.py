"""Lorries, buses and trams."""

from __future__ import annotations

import numpy as np

from tag_perception.data.street.cars import (
    GLASS,
    HEAD,
    PAINT,
    SECOND,
    TAIL,
    TRIM,
    WHITE,
    arches,
    plate,
)
from tag_perception.data.street.shapes import METRIC, TYRE, Shape, Solid


def build_lorry(length: float, height: float, cargo: str, width: float = 2.48) -> Shape:
    """A cab before a `cargo` of kind box, curtain, tipper or tank."""
    s, half = Solid(), width / 2 - 0.02
    rear, front, cab = -length / 2, length / 2, length / 2 - 2.0
    roof = min(height, 2.75)
    brow = (front - 0.3, half - 0.03, roof)
    s.hull([(cab, half - 0.03, roof), brow, (front, half - 0.06, 1.75)], 0.42, PAINT)
    s.pair('sides', half - 0.02, (cab + 0.45, front - 0.42), (1.55, 2.4), PAINT, 'pane')
    _screen(s, (front, half - 0.06, 1.75), brow, 1)
    _face(s, front, width - 0.1, 0.75)
    frame = ((rear + 0.3, 0.5 - half, 0.55), (cab, half - 0.5, 1.0))
    s.box(*frame, TYRE, faces='back left right')
    _cargo(s, cargo, (rear, cab - 0.12), half, height)
    _tail(s, rear, width, 0.85)
    s.box((rear, -half, 0.6), (rear + 0.1, half, 1.05), TYRE, faces='back left right top')
    long = length > 8
    _wheels(
        s, (rear + 1.2, rear + 2.5, front - 1.3) if long else (rear + 1.5, front - 1.15), width
    )
    return s.shape().grounded(centred=True)


def build_bus(length: float, height: float, width: float = 2.54) -> Shape:
    """A city bus with doors on its right."""
    s, half, rear, front = Solid(), width / 2 - 0.02, -length / 2, length / 2
    roof, nose = height - 0.02, (front - 0.35, half, height - 0.02)
    tail = [(rear, half - 0.05, height - 0.06), (rear + 0.25, half, roof)]
    s.hull([*tail, nose, (front, half - 0.08, height - 0.3)], 0.32, PAINT)
    side = (rear + 0.3, front - 0.4)
    s.pair('sides', half + 0.01, side, (1.25, 2.45), PAINT, 'panes_bus')
    s.pair('sides', half + 0.005, side, (0.34, 0.75), SECOND)
    for x in (front - 1.7, 0.3, rear + 2.6):
        s.panel('right', -half - 0.015, (x - 0.62, x + 0.62), (0.4, 2.5), GLASS, 'panes_two')
    s.panel('back', rear - 0.01, (0.25 - half, half - 0.25), (1.5, 2.5), PAINT, 'pane')
    s.panel(
        'front', front + 0.01, (0.16 - half, half - 0.16), (1.05, height - 0.65), PAINT, 'pane'
    )
    s.panel('front', front + 0.01, (0.4 - half, half - 0.4), (height - 0.62, height - 0.36), HEAD)
    _face(s, front, width - 0.2, 0.68)
    _tail(s, rear, width - 0.1, 1.0)
    s.box((rear + 1.5, -0.6, height - 0.02), (rear + 4.0, 0.6, height + 0.14), PAINT)
    _wheels(s, (rear + 3.2, front - 2.7), width)
    return s.shape().grounded(centred=True)


def build_tram(length: float, height: float = 3.45, width: float = 2.42) -> Shape:
    """A tram with the same face at both ends; red lamps at the rear."""
    s, half, nose = Solid(), width / 2 - 0.02, 0.9
    end, brow = length / 2, length / 2 - nose
    tip, eaves = half - 0.4, height - 0.2
    s.hull(
        [(-end, tip, 1.6), (-brow, half, eaves), (brow, half, eaves), (end, tip, 1.6)], 0.2, PAINT
    )
    s.pair('sides', half + 0.01, (-brow, brow), (1.2, 2.6), PAINT, 'panes_tram')
    s.pair('sides', half + 0.006, (-brow, brow), (0.22, 0.7), SECOND)
    for direction, face, lamp in ((1, 'front', HEAD), (-1, 'back', TAIL)):
        _screen(s, (end, tip, 1.6), (brow, half, eaves), direction)
        s.pair(face, direction * (end + 0.012), (tip - 0.4, tip - 0.1), (0.8, 1.02), lamp)
        s.panel(face, direction * (end + 0.012), (-0.5, 0.5), (1.1, 1.5), WHITE, 'grille')
    for x in np.linspace(2.2 - end, end - 2.2, max(2, round(length / 7))):
        s.pair('sides', half + 0.014, (x - 0.6, x + 0.6), (0.3, 2.65), GLASS, 'panes_two')
    s.box((2 - end, -0.8, eaves), (end - 2, 0.8, height), TRIM)
    bogies = ((1.2 - end, 0.2 - half, 0.0), (end - 1.2, half - 0.2, 0.2))
    s.box(*bogies, TYRE, faces='front back left right')
    return s.shape().grounded(centred=True)


def _screen(
    s: Solid, low: tuple[float, float, float], high: tuple[float, float, float], direction: int
) -> None:
    """A windscreen on the slope between two stations (x, half width, z) of a hull."""
    corners = []
    for share, side in ((0.04, 1), (0.04, -1), (0.86, -1), (0.86, 1)):
        x, half, z = (a + share * (b - a) for a, b in zip(low, high, strict=True))
        corners.append((direction * (x + 0.012), side * (half - 0.08), z + 0.012))
    s.quad(corners, PAINT, 'pane', away_from=(0.0, 0.0, 1.0))


def _face(s: Solid, x: float, width: float, lamp: float) -> None:
    """Lamps, grille and plate on a front at x; the lamps' middle is at height `lamp`."""
    half = width / 2
    plate(s, 'front', x + 0.015, lamp - 0.2)
    s.panel(
        'front', x + 0.01, (0.5 - half, half - 0.5), (lamp - 0.08, lamp + 0.25), WHITE, 'grille'
    )
    s.pair('front', x + 0.015, (half - 0.45, half - 0.08), (lamp - 0.1, lamp + 0.1), HEAD)


def _tail(s: Solid, x: float, width: float, lamp: float) -> None:
    s.pair(
        'back', x - 0.015, (width / 2 - 0.35, width / 2 - 0.04), (lamp - 0.12, lamp + 0.12), TAIL
    )
    plate(s, 'back', x - 0.015, lamp - 0.08)


def _wheels(s: Solid, xs: tuple[float, ...], width: float) -> None:
    arches(s, xs, width / 2 - 0.012, 0.54)
    s.wheels(xs, width / 2, 0.47, 0.45, TRIM, 'wheel_heavy')


def _cargo(s: Solid, kind: str, x: tuple[float, float], half: float, height: float) -> None:
    rear, front = x
    if kind in ('box', 'curtain'):
        texture = 'sheet' if kind == 'box' else 'cloth'
        s.box((rear, -half, 1.0), (front, half, height), SECOND, texture, METRIC)
        if kind == 'box':
            advert = (1.5, height - 0.4)
            s.pair('sides', half + 0.01, (rear + 0.4, front - 0.4), advert, WHITE, 'poster_a')
    elif kind == 'tipper':
        s.box((rear, -half, 0.95), (front, half, 1.95), SECOND, 'sheet', METRIC)
        load = ((rear + 0.3, 0.15 - half, 1.9), (front - 0.3, half - 0.15, 2.1))
        s.box(*load, TRIM, 'earth', METRIC)
        s.box((front - 0.1, -half, 1.9), (front, half, height), SECOND)
    else:
        middle = (1.0 + height) / 2
        radius = (height - 1.0) / 2
        s.prism((rear, 0, middle), (front, 0, middle), (radius, radius), SECOND, sides=12)
