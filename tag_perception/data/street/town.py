"""The plan of one street: its lanes, sides, tracks, side streets, and the strips of its ground."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from tag_perception.data.street.dice import Dice
from tag_perception.data.street.road import (
    CELLS,
    FIRST_M,
    KERB_M,
    OUTER_M,
    STEP_M,
    Cover,
    Road,
    Strip,
    bend,
)

THEMES = {'residential': 0.28, 'urban': 0.34, 'avenue': 0.22, 'outskirts': 0.16}
"""Kinds of streets and how often they come."""
PARKING = {'residential': 0.8, 'urban': 0.65, 'avenue': 0.45, 'outskirts': 0.25}
"""How often a side has a parking lane."""
GREEN_VERGE = {'residential': 0.3, 'urban': 0.3, 'avenue': 0.6, 'outskirts': 0.8}
"""How often a side has a verge wide enough for trees."""
ACROSS_M, ALONG_M = 5.0, 2.15
"""Widths of parking lanes for vehicles standing across and along."""


@dataclass(frozen=True)
class Lane:
    """One lane; `way` is +1 along the street, -1 against it, 0 for parking."""

    d: float
    """Of its middle."""
    width: float
    way: int
    across: bool = False
    """Vehicles park across it."""


@dataclass(frozen=True)
class Side:
    """What lies beyond the carriageway on one side; distances are |d|."""

    sign: int
    """+1 left, -1 right."""
    kerb: float
    walk: tuple[float, float]
    """Inner and outer edge of the sidewalk."""

    @property
    def verge(self) -> tuple[float, float]:
        """The strip with trees and posts between kerb and sidewalk."""
        return self.kerb, self.walk[0]


@dataclass
class Plan:
    """The cross-section of a street and where its side streets are."""

    theme: str
    lanes: list[Lane]
    sides: tuple[Side, Side]
    """Left, right."""
    road: Road
    median: tuple[float, float] | None
    rails: list[float]
    """d of the tram tracks."""
    cover: dict[tuple[int, int], Cover] = field(default_factory=dict)
    """Cells of the ground, by knot and strip, that differ from their strip."""

    @property
    def left_edge(self) -> float:
        """d of the left kerb."""
        return self.sides[0].kerb

    @property
    def right_edge(self) -> float:
        """d of the right kerb."""
        return -self.sides[1].kerb

    @property
    def asphalt(self) -> tuple[float, float, float]:
        """Colour of the carriageway."""
        return next(strip.color for strip in self.road.strips if strip.label == 'road')

    def room(self, d: float) -> float:
        """Metres from d to the nearest lane; below 0 within one."""
        return min(abs(d - lane.d) - lane.width / 2 for lane in self.lanes)

    def in_median(self, d: float, margin: float = 0.0) -> bool:
        """Whether d lies between the carriageways."""
        return self.median is not None and self.median[0] - margin < d < self.median[1] + margin

    def pave(self, a: float, b: float, strips: Iterable[int], cover: Cover) -> None:
        """Cover the ground between s = a and b, except the carriageway."""
        first, last = (max(0, round((s - FIRST_M) / STEP_M)) for s in (a, b))
        for column in strips:
            if self.road.strips[column].label != 'road':
                self.cover |= {(row, column): cover for row in range(first, min(last, CELLS))}

    def open_side_streets(self) -> None:
        """Asphalt right across in the mouths of side streets."""
        for a, b in self.road.side_streets:
            strips = range(len(self.road.strips))
            self.pave(a, b, strips, Cover('road', 'asphalt', self.asphalt))


def plan(dice: Dice) -> Plan:
    """Draw a cross-section, side streets and the course of the road."""
    theme = dice.weighted(THEMES)
    lanes, right, left, median = _carriageway(dice, theme)
    rails: list[float] = []
    if theme in ('urban', 'avenue') and dice.chance(0.7):
        rails = [lane.d for lane in lanes if lane.way == -1][:1]
        rails += [0.0] if dice.chance(0.5) else []
        if median and median[1] - median[0] > 3.4:
            rails = [sum(median) / 2]
    sides = (_side(dice, 1, left, theme), _side(dice, -1, -right, theme))
    tracks = median is not None and any(median[0] < d < median[1] for d in rails)
    strips = _strips(dice, sides, median, theme, tracks)
    road = bend(dice, strips, _side_streets(dice))
    return Plan(theme, lanes, sides, road, median, rails)


def _carriageway(
    dice: Dice, theme: str
) -> tuple[list[Lane], float, float, tuple[float, float] | None]:
    """Lanes, d of the right and the left kerb, and the median, if any; ego drives at d = 0."""
    width, wide, median = dice.uniform(2.9, 3.6), theme == 'avenue', None
    lanes, right, left = [Lane(0.0, width, 1)], -width / 2, width / 2
    if wide and dice.chance(0.4):
        lanes.append(Lane(right - width / 2, width, 1))
        right -= width
    if wide and dice.chance(0.6):
        lanes.append(Lane(left + width / 2, width, 1))
        left += width
    if wide and dice.chance(0.6):
        median = (left, left + dice.uniform(1.5, 7.0))
        left = median[1]
    one_way = theme == 'residential' and dice.chance(0.2)
    for _ in range(2 if wide else 1 - one_way):
        lanes.append(Lane(left + width / 2, width, -1))
        left += width
    if dice.chance(PARKING[theme]):
        lanes.append(_parking(dice, right, -1))
        right -= lanes[-1].width
    if dice.chance(PARKING[theme]):
        lanes.append(_parking(dice, left, 1))
        left += lanes[-1].width
    return lanes, right, left, median


def _parking(dice: Dice, edge: float, sign: int) -> Lane:
    across = dice.chance(0.18)
    width = ACROSS_M if across else ALONG_M
    return Lane(edge + sign * width / 2, width, 0, across)


def _side(dice: Dice, sign: int, kerb: float, theme: str) -> Side:
    inner = kerb + (dice.uniform(1.2, 2.6) if dice.chance(GREEN_VERGE[theme]) else 0.35)
    return Side(sign, kerb, (inner, inner + dice.uniform(1.8, 4.5)))


def _side_streets(dice: Dice) -> tuple[tuple[float, float], ...]:
    """Ranges of s, from knot to knot."""
    places: list[tuple[float, float]] = []
    s = dice.uniform(8, 70)
    while s < 190:
        begin = round(s / STEP_M) * STEP_M
        places.append((begin, begin + STEP_M * dice.whole(3, 6)))
        s = places[-1][1] + dice.uniform(45, 120)
    return tuple(places)


def _strips(
    dice: Dice,
    sides: tuple[Side, Side],
    median: tuple[float, float] | None,
    theme: str,
    tracks: bool,
) -> tuple[Strip, ...]:
    """The whole profile from right to left."""
    tone, (left, right) = dice.uniform(0.17, 0.3), sides
    asphalt = Cover('road', 'asphalt', (tone, tone, tone * dice.uniform(0.98, 1.06)))
    edges = [-right.kerb, *(median or ()), left.kerb]
    inner = [Strip(a, b, 0.0, 0.0, asphalt) for a, b in zip(edges[::2], edges[1::2], strict=True)]
    if median:
        kinds = (
            Cover('terrain', 'grass', _grass(dice)),
            Cover('sidewalk', 'paving', (0.42, 0.41, 0.4)),
        )
        kind = Cover('rail track', 'earth', (0.32, 0.29, 0.25)) if tracks else dice.pick(kinds)
        (a, b), stone = median, Cover('sidewalk', 'concrete', (0.5, 0.5, 0.48))
        inner[1:1] = [
            Strip(a, a + 0.04, 0.0, KERB_M, stone),
            Strip(a + 0.04, b - 0.04, KERB_M, KERB_M, kind),
            Strip(b - 0.04, b, KERB_M, 0.0, stone),
        ]
    outer = [strip.mirrored() for strip in reversed(_outward(dice, right, theme))]
    return (*outer, *inner, *_outward(dice, left, theme))


def _outward(dice: Dice, side: Side, theme: str) -> list[Strip]:
    """Kerb, verge, sidewalk and the land behind, as if on the left."""
    gray, tone = dice.uniform(0.42, 0.58), dice.uniform(0.32, 0.55)
    stone = Cover('sidewalk', 'concrete', (gray, gray, gray * 0.98))
    pattern = dice.pick(('slabs', 'paving', 'slabs', 'concrete', 'cobble', 'asphalt'))
    walk = Cover(
        'sidewalk', pattern, (tone, tone * dice.uniform(0.95, 1), tone * dice.uniform(0.9, 1))
    )
    grass = [Cover('terrain', 'grass', _grass(dice)) for _ in range(3)]
    verge = grass[0] if side.verge[1] - side.verge[0] > 1 and dice.chance(0.75) else walk
    rise = dice.gauss(0, 1.5) if theme in ('outskirts', 'residential') else 0.0
    a, (inner, b), top, near = side.kerb, side.walk, KERB_M + 0.05, 0.12 * rise
    return [
        Strip(a, a + 0.03, 0.0, KERB_M, stone),
        Strip(a + 0.03, a + 0.18, KERB_M, KERB_M, stone),
        Strip(a + 0.18, inner, KERB_M, KERB_M + 0.01, verge),
        Strip(inner, b, KERB_M + 0.01, top, walk),
        Strip(b, b + 7, top, top + near, grass[1]),
        Strip(b + 7, OUTER_M, top + near, KERB_M + rise, grass[2]),
    ]


def _grass(dice: Dice) -> tuple[float, float, float]:
    tone = dice.uniform(0.3, 0.5)
    return tone * dice.uniform(0.75, 1.1), tone, tone * dice.uniform(0.4, 0.6)
