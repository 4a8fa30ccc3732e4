"""What stands and moves in a street: the layout of one place, drawn from a random generator."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from tag_perception.data.street import colors
from tag_perception.data.street.dice import Dice
from tag_perception.data.street.road import KERB_M, KNOTS, OUTER_M, STEP_M, Road, Strip, bend
from tag_perception.data.street.scenery import CROWNS, FACADES, FENCES, POSTERS, SHOPS, SIGNS
from tag_perception.data.street.stage import Stage, shapes
from tag_perception.data.street.weather import Weather

TREES = tuple(name.replace('crown', 'tree') for name in CROWNS)


@dataclass
class Lane:
    """One lane; `way` is +1 along the street, -1 against it, 0 for parking."""

    d: float
    width: float
    way: int
    kind: str = 'drive'


@dataclass
class Side:
    """What lies beyond the carriageway on one side (`sign` +1 left, -1 right)."""

    sign: int
    kerb: float
    """|d| of the kerb."""
    walk: tuple[float, float]
    """|d| of the inner and outer edge of the sidewalk."""
    verge: tuple[float, float]
    """|d| of the strip with trees and posts beside the kerb."""


@dataclass
class Plan:
    """The cross-section of a street and where its side streets are."""

    lanes: list[Lane]
    sides: tuple[Side, Side]
    road: Road
    median: tuple[float, float] | None
    rails: list[float]
    """d of the tram tracks."""
    theme: str
    cover: dict[tuple[int, int], tuple[str, str, tuple[float, float, float]]] = field(
        default_factory=dict
    )

    @property
    def left_edge(self) -> float:
        """d of the left kerb."""
        return self.sides[0].kerb

    @property
    def right_edge(self) -> float:
        """d of the right kerb."""
        return -self.sides[1].kerb


THEMES = {'residential': 0.28, 'urban': 0.34, 'avenue': 0.2, 'outskirts': 0.18}
"""Kinds of streets and how often they come."""


def plan(dice: Dice) -> Plan:
    """Draw a cross-section, side streets and the course of the road."""
    theme = dice.weighted(THEMES)
    width = dice.uniform(2.9, 3.6)
    lanes = [Lane(0.0, width, 1)]
    right = -width / 2
    if theme == 'avenue' and dice.random() < 0.4:
        lanes.append(Lane(right - width / 2, width, 1))
        right -= width
    right = _parking(dice, lanes, right, -1, theme)
    left = width / 2
    if theme == 'avenue' and dice.random() < 0.6:
        lanes.append(Lane(left + width / 2, width, 1))
        left += width
    median = None
    if theme == 'avenue' and dice.random() < 0.6:
        median = (left, left + dice.uniform(1.5, 7.0))
        left = median[1]
    for _ in range({'residential': int(dice.random() < 0.8), 'avenue': 2}.get(theme, 1)):
        lanes.append(Lane(left + width / 2, width, -1))
        left += width
    left = _parking(dice, lanes, left, 1, theme)
    rails = []
    if theme in ('urban', 'avenue') and dice.random() < 0.55:
        rails = [lane.d for lane in lanes if lane.way == -1][:1]
        rails += [0.0] if dice.random() < 0.4 else []
        if median and median[1] - median[0] > 3.4:
            rails = [sum(median) / 2]
    sides = (_side(dice, 1, left, theme), _side(dice, -1, -right, theme))
    strips = _strips(
        dice, sides, median, theme, bool(median and rails and median[0] < rails[0] < median[1])
    )
    road = bend(dice, strips, _side_streets(dice, theme))
    return Plan(lanes, sides, road, median, rails, theme)


def _parking(
    dice: Dice, lanes: list[Lane], edge: float, sign: int, theme: str
) -> float:
    kind = dice.random()
    chance = {'residential': 0.8, 'urban': 0.65, 'avenue': 0.45, 'outskirts': 0.25}[theme]
    if kind > chance:
        return edge
    across = dice.random() < 0.18
    width = 5.0 if across else 2.15
    lanes.append(Lane(edge + sign * width / 2, width, 0, 'across' if across else 'along'))
    return edge + sign * width


def _side(dice: Dice, sign: int, kerb: float, theme: str) -> Side:
    tree_strip = (
        dice.uniform(1.2, 2.6)
        if dice.random() < {'outskirts': 0.8, 'avenue': 0.6}.get(theme, 0.3)
        else 0.35
    )
    inner = kerb + tree_strip
    return Side(sign, kerb, (inner, inner + dice.uniform(1.8, 4.5)), (kerb, inner))


def _side_streets(dice: Dice, theme: str) -> tuple[tuple[float, float], ...]:
    places: list[tuple[float, float]] = []
    s = float(dice.uniform(8, 70))
    while s < 190:
        width = STEP_M * dice.whole(3, 6)
        begin = round(s / STEP_M) * STEP_M
        places.append((begin, begin + width))
        s = begin + width + dice.uniform(45, 120)
    return tuple(places)


def _strips(
    dice: Dice,
    sides: tuple[Side, Side],
    median: tuple[float, float] | None,
    theme: str,
    tracks: bool,
) -> tuple[Strip, ...]:
    tone = dice.uniform(0.17, 0.3)
    asphalt = (tone, tone, tone * dice.uniform(0.98, 1.06))
    left, right = sides
    inner = [Strip(-right.kerb, left.kerb, 0, 0, 'road', 'asphalt', asphalt)]
    if median:
        kind = ('rail track', 'earth', (0.32, 0.29, 0.25)) if tracks else dice.pick([
            ('terrain', 'grass', _grass(dice)), ('sidewalk', 'paving', (0.42, 0.41, 0.4)),
        ])  # fmt: skip
        a, b = median
        inner = [
            Strip(-right.kerb, a, 0, 0, 'road', 'asphalt', asphalt),
            Strip(a, a + 0.04, 0, KERB_M, 'sidewalk', 'concrete', (0.5, 0.5, 0.48)),
            Strip(a + 0.04, b - 0.04, KERB_M, KERB_M, *kind),
            Strip(b - 0.04, b, KERB_M, 0, 'sidewalk', 'concrete', (0.5, 0.5, 0.48)),
            Strip(b, left.kerb, 0, 0, 'road', 'asphalt', asphalt),
        ]  # fmt: skip
    outward = {side.sign: _outward(dice, side, theme) for side in sides}
    mirrored = [
        Strip(-p.d_high, -p.d_low, p.z_high, p.z_low, p.label, p.texture, p.color)
        for p in reversed(outward[-1])
    ]
    return tuple([*mirrored, *inner, *outward[1]])


def _outward(dice: Dice, side: Side, theme: str) -> list[Strip]:
    """Kerb, verge, sidewalk and the land behind, as if on the left."""
    stone = dice.uniform(0.42, 0.58)
    tone = dice.uniform(0.32, 0.55)
    walk = (tone, tone * dice.uniform(0.95, 1), tone * dice.uniform(0.9, 1))
    pattern = dice.pick(['slabs', 'paving', 'slabs', 'concrete', 'cobble', 'asphalt'])
    wide = side.verge[1] - side.verge[0] > 1
    verge = (
        ('terrain', 'grass', _grass(dice))
        if wide and dice.random() < 0.75
        else ('sidewalk', pattern, walk)
    )
    a, b = side.kerb, side.walk[1]
    rise = dice.gauss(0, 1.5) if theme in ('outskirts', 'residential') else 0.0
    return [
        Strip(a, a + 0.03, 0, KERB_M, 'sidewalk', 'concrete', (stone, stone, stone)),
        Strip(a + 0.03, a + 0.18, KERB_M, KERB_M, 'sidewalk', 'concrete', (stone, stone, stone * 0.97)),
        Strip(a + 0.18, side.walk[0], KERB_M, KERB_M + 0.01, *verge),
        Strip(side.walk[0], b, KERB_M + 0.01, KERB_M + 0.05, 'sidewalk', pattern, walk),
        Strip(b, b + 7, KERB_M + 0.05, KERB_M + 0.05 + 0.12 * rise, 'terrain', 'grass', _grass(dice)),
        Strip(b + 7, OUTER_M, KERB_M + 0.05 + 0.12 * rise, KERB_M + rise, 'terrain', 'grass', _grass(dice)),
    ]  # fmt: skip


def _grass(dice: Dice) -> tuple[float, float, float]:
    tone = dice.uniform(0.3, 0.5)
    return tone * dice.uniform(0.75, 1.1), tone, tone * dice.uniform(0.4, 0.6)
