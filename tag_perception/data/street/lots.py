"""What lies behind the sidewalks: houses, gardens, parks, walls, yards, and the far backdrop."""

from __future__ import annotations

from dataclasses import dataclass

from tag_perception.data.street import colors
from tag_perception.data.street.dice import Dice, every
from tag_perception.data.street.road import KNOTS, Cover
from tag_perception.data.street.scenery import CROWNS, FACADES, FENCES, LOW_CROWN, LOW_HALF, SHOPS
from tag_perception.data.street.stage import Stage
from tag_perception.data.street.town import Plan, Side
from tag_perception.data.street.weather import Weather

FAR_M = 205.0
"""Beyond this the street is closed by a backdrop."""
TREES = tuple(name.replace('crown', 'tree') for name in CROWNS)
LOW_TREE = LOW_CROWN.replace('crown', 'tree')
LOTS = {
    'residential': {'house': 5.0, 'block': 2.0, 'park': 1.0, 'wall': 1.5, 'yard': 1.0},
    'urban': {'block': 8.0, 'park': 0.7, 'wall': 0.8, 'yard': 0.8},
    'avenue': {'block': 5.0, 'park': 2.0, 'wall': 1.0, 'yard': 1.5},
    'outskirts': {'park': 4.0, 'house': 1.5, 'yard': 2.0, 'wall': 1.5, 'block': 0.7},
}
"""Kinds of lots by theme and how often they come."""


@dataclass
class Builder:
    """Places still things of one plan on a stage."""

    plan: Plan
    stage: Stage
    weather: Weather
    dice: Dice

    def plant(self, s: float, d: float, height: float) -> None:
        """A bush below 2 m, else a tree."""
        if self.plan.road.in_side_street(s, 1.5):
            return
        dice, yaw = self.dice, self.dice.uniform(-0.3, 0.3)
        foliage = colors.foliage(dice, self.weather.season)
        if height < 2:
            size = (1.0, height * dice.uniform(1, 2), height)
            self.stage.add('bush', s, d, 'vegetation', foliage, scale=size, yaw=yaw)
            return
        width = height * dice.uniform(0.8, 1.15)
        tree = dice.pick(TREES) if height > 4 else 'tree_round'
        self.tree(tree, s, d, foliage, width, height, yaw)

    def tree(
        self, name: str, s: float, d: float, foliage: colors.Palette, width: float, height: float,
        yaw: float,
    ) -> None:  # fmt: skip
        """A tree; branches near the ground end where the next lane begins."""
        if name == LOW_TREE:
            width = min(width, self.plan.room(d) / LOW_HALF)
        size = (width, width, height)
        self.stage.add(name, s, d, 'vegetation', foliage, scale=size, yaw=yaw, shadow=2)

    def block(
        self, texture: str, s: float, d: float, label: str, tone: colors.Palette,
        size: tuple[float, float, float], sunk: float = 0.0, shadow: int = 1,
    ) -> None:  # fmt: skip
        """A box of the given size above the ground, continued `sunk` metres below it."""
        length, width, height = size
        scale = (length, width, height + sunk)
        self.stage.add(texture, s, d, label, tone, lift=-sunk, scale=scale, shadow=shadow)


class Lots(Builder):
    """Fills both sides of the street from one end to the other."""

    def build(self) -> None:
        """All lots, then what closes the horizon behind them."""
        for side in self.plan.sides:
            self._row(side)
        self._backdrop()

    def _row(self, side: Side) -> None:
        kinds = {
            'house': self._house, 'block': self._terrace, 'park': self._park, 'wall': self._wall,
            'yard': self._yard,
        }  # fmt: skip
        dice, s, shares = self.dice, float(KNOTS[0]) + 5, LOTS[self.plan.theme]
        while s < FAR_M:
            length = dice.pick((9.0, 12.0, 12.0, 15.0, 18.0, 24.0))
            mouth = next(
                (m for m in self.plan.road.side_streets if s < m[1] and m[0] < s + length - 1),
                None,
            )
            if mouth:
                length = mouth[0] - s - 0.5
            if length > 5.5:
                kinds[dice.weighted(shares)](side, s, length)
            s = mouth[1] + 0.5 if mouth else s + length

    def _ground(self, side: Side, s: float, length: float, cover: Cover) -> None:
        count = len(self.plan.road.strips)
        outer = range(count - 2, count) if side.sign > 0 else range(2)
        self.plan.pave(s, s + length, outer, cover)

    def _terrace(self, side: Side, s: float, length: float) -> None:
        """A house straight at the sidewalk, often with a shop."""
        dice, edge = self.dice, side.walk[1] + self.dice.uniform(0, 0.3)
        self._ground(side, s, length, Cover('sidewalk', 'slabs', (0.42, 0.42, 0.41)))
        self._building(side, s, length, edge, 12.0, dice.whole(2, 7))
        if dice.chance(0.5):
            tone, d = colors.palette(colors.pick(dice, colors.WALLS)), side.sign * (edge + 0.9)
            size = (length - 0.2, 2.0, 3.7)
            self.block(dice.pick(SHOPS), s + length / 2, d, 'building', tone, size, shadow=0)

    def _building(
        self, side: Side, s: float, length: float, edge: float, depth: float, storeys: int
    ) -> None:
        """Walls with windows, and mostly a tiled roof with chimneys."""
        dice, middle, d = self.dice, s + length / 2, side.sign * (edge + depth / 2)
        facade, height = dice.pick(FACADES), 3.0 * storeys
        wall = colors.pick(dice, colors.BRICKS if facade == 'facade_brick' else colors.WALLS, 0.15)
        flat_roof = (0.4, 0.4, 0.4)
        tone = colors.palette(wall, flat_roof)
        self.block(facade, middle, d, 'building', tone, (length, depth, height), 3.0)
        if facade == 'facade_office' or dice.chance(0.25):
            return
        roof, pitch = colors.palette(colors.pick(dice, colors.ROOFS), wall), dice.uniform(2.0, 4.5)
        size = (length + 0.1, depth + 0.8, pitch)
        self.stage.add('roof', middle, d, 'building', roof, lift=height, scale=size)
        for _ in range(dice.whole(0, 3)):
            at, brick = middle + dice.uniform(-0.4, 0.4) * length, colors.pick(dice, colors.BRICKS)
            self.stage.add(
                'brick', at, d, 'building', colors.palette(brick), lift=height + pitch - 1,
                scale=(0.8, 0.6, 1.8),
            )  # fmt: skip

    def _house(self, side: Side, s: float, length: float) -> None:
        """A detached house behind a garden."""
        dice, edge = self.dice, side.walk[1]
        setback = dice.uniform(3, 6)
        self._ground(side, s, length, Cover('terrain', 'grass', (0.33, 0.38, 0.18)))
        self._building(side, s + 1.5, length - 3, edge + setback, 9.0, dice.whole(1, 4))
        self._boundary(side, s, length, edge + 0.15)
        for _ in range(dice.whole(1, 4)):
            d = side.sign * (edge + dice.uniform(1, setback))
            self.plant(s + dice.uniform(0, length), d, dice.uniform(1.0, 4.5))

    def _park(self, side: Side, s: float, length: float) -> None:
        """Grass, trees and bushes."""
        dice, edge = self.dice, side.walk[1]
        self._ground(side, s, length, Cover('terrain', 'grass', (0.31, 0.38, 0.16)))
        if dice.chance(0.45):
            self._boundary(side, s, length, edge + 0.2)
        for _ in range(int(length / 3.2)):
            d = side.sign * (edge + 1.5 + 22 * dice.random() ** 1.3)
            self.plant(s + dice.uniform(0, length), d, dice.uniform(4, 13))
        for _ in range(int(length / 6)):
            d = side.sign * (edge + dice.uniform(1, 8))
            self.plant(s + dice.uniform(0, length), d, dice.uniform(0.7, 1.8))

    def _wall(self, side: Side, s: float, length: float) -> None:
        """A long wall with greenery or a building behind it."""
        dice, edge = self.dice, side.walk[1]
        self._masonry(side, s, length, edge + 0.3, dice.uniform(1.2, 3.6))
        if dice.chance(0.5):
            self._building(side, s, length, edge + 4, 10.0, dice.whole(2, 5))
            return
        for _ in range(int(length / 4)):
            d = side.sign * (edge + dice.uniform(2, 8))
            self.plant(s + dice.uniform(0, length), d, dice.uniform(4, 10))

    def _yard(self, side: Side, s: float, length: float) -> None:
        """A fenced yard or car park with a hall or trees at its back."""
        dice, edge = self.dice, side.walk[1]
        self._ground(side, s, length, Cover('parking', 'asphalt', (0.26, 0.26, 0.26)))
        self._fence(side, s, length, edge + 0.15)
        if dice.chance(0.6):
            tone, d = colors.palette(colors.pick(dice, colors.WALLS)), side.sign * (edge + 22)
            size = (length, 14.0, dice.uniform(5, 9))
            self.block('sheet', s + length / 2, d, 'building', tone, size, 0.5)
            return
        for _ in range(int(length / 4)):
            d = side.sign * (edge + dice.uniform(14, 24))
            self.plant(s + dice.uniform(0, length), d, dice.uniform(5, 11))

    def _boundary(self, side: Side, s: float, length: float, edge: float) -> None:
        dice = self.dice
        kind = dice.pick(('fence', 'fence', 'hedge', 'wall'))
        if kind == 'fence':
            self._fence(side, s, length, edge)
        elif kind == 'wall':
            self._masonry(side, s, length, edge + 0.1, dice.uniform(0.9, 1.7))
        else:
            size = (length, dice.uniform(0.6, 1.1), dice.uniform(0.9, 2.2))
            leaves, d = colors.foliage(dice, 0), side.sign * (edge + 0.5)
            self.block('hedge', s + length / 2, d, 'vegetation', leaves, size, 0.2)

    def _fence(self, side: Side, s: float, length: float, edge: float) -> None:
        dice = self.dice
        material = dice.pick((colors.METAL, colors.METAL, colors.WOOD))
        tone, height = colors.palette(colors.pick(dice, material)), dice.uniform(0.9, 2.0)
        size = (length, 1.0, height)
        self.stage.add(
            dice.pick(FENCES), s + length / 2, side.sign * edge, 'fence', tone, scale=size
        )

    def _masonry(self, side: Side, s: float, length: float, edge: float, height: float) -> None:
        dice = self.dice
        kind = dice.pick(('stone', 'brick', 'concrete', 'plaster'))
        tone = colors.pick(dice, colors.BRICKS if kind == 'brick' else colors.WALLS)
        size, d = (length + 0.05, 0.35, height), side.sign * edge
        self.block(kind, s + length / 2, d, 'wall', colors.palette(tone), size, 0.5)

    def _backdrop(self) -> None:
        """Taller houses or woods behind the lots and across the end of the street."""
        dice = self.dice
        for sign in (1, -1):
            woods = dice.chance(0.75 if self.plan.theme in ('outskirts', 'residential') else 0.25)
            for s in every(0, FAR_M + 20, 16):
                self._far(s, sign * dice.uniform(38, 55), woods)
        for d in every(-66, 67, 11):
            self._far(FAR_M + dice.uniform(8, 18), d, dice.chance(0.6))

    def _far(self, s: float, d: float, woods: bool) -> None:
        dice = self.dice
        if woods:
            foliage = colors.foliage(dice, self.weather.season)
            size = (18.0, 22.0, dice.uniform(9, 15))
            self.stage.add('tree_flat', s, d, 'vegetation', foliage, lift=-3.0, scale=size)
            return
        tone = colors.palette(colors.pick(dice, colors.WALLS), (0.3, 0.3, 0.3))
        size = (13.0, 13.0, 3.0 * dice.whole(3, 8))
        self.block(dice.pick(FACADES), s, d, 'building', tone, size, 3.0, shadow=0)
