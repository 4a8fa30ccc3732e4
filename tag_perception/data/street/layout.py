"""Everything that stands still in a street: lots on both sides, street furniture, and road paint."""

from __future__ import annotations

import math

import numpy as np

from tag_perception.data.street import colors
from tag_perception.data.street.dice import Dice
from tag_perception.data.street.road import KERB_M, KNOTS, STEP_M, Patches, marks
from tag_perception.data.street.scenery import FACADES, FENCES, POSTERS, SHOPS, SIGNS
from tag_perception.data.street.stage import Stage
from tag_perception.data.street.town import TREES, Plan, Side
from tag_perception.data.street.weather import Weather

FAR_M = 205.0
"""Beyond this the street is closed by a backdrop."""

LOTS = {
    'residential': {'house': 5, 'block': 2, 'park': 1, 'wall': 1.5, 'yard': 1},
    'urban': {'block': 8, 'park': 0.7, 'wall': 0.8, 'yard': 0.8},
    'avenue': {'block': 5, 'park': 2, 'wall': 1, 'yard': 1.5},
    'outskirts': {'park': 4, 'house': 1.5, 'yard': 2, 'wall': 1.5, 'block': 0.7},
}


class Layout:
    """Places the still things of one plan on a stage."""

    def __init__(
        self, plan: Plan, stage: Stage, weather: Weather, dice: Dice
    ) -> None:
        self.plan, self.stage, self.weather, self.dice = plan, stage, weather, dice

    def build(self) -> list[Patches]:
        """Fill the stage and `plan.cover`; returns the paint on the road."""
        for a, b in self.plan.road.side_streets:
            self._cover(
                a, b, range(len(self.plan.road.strips)), ('road', 'asphalt', self._asphalt())
            )
        for side in self.plan.sides:
            self._lots(side)
            self._furniture(side)
        if self.plan.median:
            self._median(self.plan.median)
        self._crossings()
        self._backdrop()
        return self._paint()

    def _asphalt(self) -> tuple[float, float, float]:
        return next(strip.color for strip in self.plan.road.strips if strip.label == 'road')

    def _cover(self, a: float, b: float, strips: range, kind: tuple) -> None:
        for row in np.nonzero((KNOTS[:-1] > a - STEP_M / 2) & (KNOTS[1:] < b + STEP_M / 2))[0]:
            for column in strips:
                if self.plan.road.strips[column].label != 'road':
                    self.plan.cover[int(row), column] = kind

    def _outer(self, side: Side) -> range:
        count = len(self.plan.road.strips)
        return range(count - 2, count) if side.sign > 0 else range(2)

    # --- lots -----------------------------------------------------------------------------------

    def _lots(self, side: Side) -> None:
        dice, s = self.dice, float(KNOTS[0]) + 5
        shares = LOTS[self.plan.theme]
        while s < FAR_M:
            length = dice.pick((9.0, 12.0, 12.0, 15.0, 18.0, 24.0))
            blocked = [b for a, b in self.plan.road.side_streets if a - length + 1 < s < b]
            if blocked:
                gap = next(a for a, b in self.plan.road.side_streets if b == blocked[0]) - s
                if gap > 6:
                    getattr(self, f'_{dice.weighted(shares)}')(
                        side, s, gap - 0.5
                    )
                s = blocked[0] + 0.5
                continue
            kind = dice.weighted(shares)
            getattr(self, f'_{kind}')(side, s, length)
            s += length

    def _block(self, side: Side, s: float, length: float) -> None:
        """A terraced house straight at the sidewalk, often with a shop."""
        dice, edge = self.dice, side.walk[1] + self.dice.uniform(0, 0.3)
        storeys = dice.whole(2, 7)
        self._building(side, s, length, edge, 12.0, storeys)
        if dice.random() < 0.5:
            tone = colors.palette(colors.pick(dice, colors.WALLS))
            self.stage.add(dice.pick(SHOPS), s + length / 2, side.sign * (edge + 0.9), 'building', tone, scale=(length - 0.2, 2.0, 3.7), shadow=0)  # fmt: skip
        ground = ('sidewalk', 'slabs', (0.42, 0.42, 0.41))
        self._cover(s, s + length, self._outer(side), ground)

    def _building(
        self, side: Side, s: float, length: float, edge: float, depth: float, storeys: int
    ) -> None:
        dice = self.dice
        facade = dice.pick(FACADES)
        wall = colors.pick(dice, colors.BRICKS if facade == 'facade_brick' else colors.WALLS, 0.15)
        center, middle = side.sign * (edge + depth / 2), s + length / 2
        height = 3.0 * storeys
        self.stage.add(facade, middle, center, 'building', colors.palette(wall, (0.4, 0.4, 0.4)), lift=-3.0, scale=(length, depth, height + 3.0), shadow=1)  # fmt: skip
        if facade != 'facade_office' and dice.random() < 0.75:
            roof = colors.palette(colors.pick(dice, colors.ROOFS), wall)
            pitch = dice.uniform(2.0, 4.5)
            self.stage.add('roof', middle, center, 'building', roof, lift=height, scale=(length + 0.1, depth + 0.8, pitch))  # fmt: skip
            for _ in range(dice.whole(0, 3)):
                at = middle + dice.uniform(-0.4, 0.4) * length
                self.stage.add('brick', at, center, 'building', colors.palette(colors.pick(dice, colors.BRICKS)), lift=height + pitch - 1, scale=(0.8, 0.6, 1.8))  # fmt: skip

    def _house(self, side: Side, s: float, length: float) -> None:
        """A detached house behind a garden with a hedge, wall or fence."""
        dice, edge = self.dice, side.walk[1]
        setback = dice.uniform(3, 6)
        self._cover(s, s + length, self._outer(side), ('terrain', 'grass', (0.33, 0.38, 0.18)))
        self._building(side, s + 1.5, length - 3, edge + setback, 9.0, dice.whole(1, 4))
        self._boundary(side, s, length, edge + 0.15)
        for _ in range(dice.whole(1, 4)):
            self._plant(
                s + dice.uniform(0, length),
                side.sign * (edge + dice.uniform(1, setback)),
                dice.uniform(1.0, 4.5),
            )

    def _park(self, side: Side, s: float, length: float) -> None:
        """Grass, trees and bushes."""
        dice, edge = self.dice, side.walk[1]
        self._cover(s, s + length, self._outer(side), ('terrain', 'grass', (0.31, 0.38, 0.16)))
        if dice.random() < 0.45:
            self._boundary(side, s, length, edge + 0.2)
        for _ in range(int(length / 3.2)):
            depth = edge + 1.5 + 22 * dice.random() ** 1.3
            self._plant(s + dice.uniform(0, length), side.sign * depth, dice.uniform(4, 13))
        for _ in range(int(length / 6)):
            self._plant(
                s + dice.uniform(0, length),
                side.sign * (edge + dice.uniform(1, 8)),
                dice.uniform(0.7, 1.8),
            )

    def _wall(self, side: Side, s: float, length: float) -> None:
        """A long wall with greenery or a building behind it."""
        dice, edge = self.dice, side.walk[1]
        kind = dice.pick(['stone', 'brick', 'concrete', 'plaster'])
        tone = colors.pick(dice, colors.BRICKS if kind == 'brick' else colors.WALLS)
        height = dice.uniform(1.2, 3.6)
        self.stage.add(kind, s + length / 2, side.sign * (edge + 0.3), 'wall', colors.palette(tone), lift=-0.5, scale=(length + 0.05, 0.35, height + 0.5), shadow=1)  # fmt: skip
        if dice.random() < 0.5:
            self._building(side, s, length, edge + 4, 10.0, dice.whole(2, 5))
        else:
            for _ in range(int(length / 4)):
                self._plant(
                    s + dice.uniform(0, length),
                    side.sign * (edge + dice.uniform(2, 8)),
                    dice.uniform(4, 10),
                )

    def _yard(self, side: Side, s: float, length: float) -> None:
        """A fenced yard or car park with a hall or trees at its back."""
        dice, edge = self.dice, side.walk[1]
        self._cover(s, s + length, self._outer(side), ('parking', 'asphalt', (0.26, 0.26, 0.26)))
        self._boundary(side, s, length, edge + 0.15, fence=True)
        if dice.random() < 0.6:
            tone = colors.palette(colors.pick(dice, colors.WALLS))
            self.stage.add('sheet', s + length / 2, side.sign * (edge + 22), 'building', tone, lift=-0.5, scale=(length, 14, dice.uniform(5, 9)), shadow=1)  # fmt: skip
        else:
            for _ in range(int(length / 4)):
                self._plant(
                    s + dice.uniform(0, length),
                    side.sign * (edge + dice.uniform(14, 24)),
                    dice.uniform(5, 11),
                )

    def _boundary(
        self, side: Side, s: float, length: float, edge: float, fence: bool = False
    ) -> None:
        dice, middle = self.dice, s + length / 2
        kind = 'fence' if fence else dice.pick(['fence', 'fence', 'hedge', 'wall'])
        if kind == 'fence':
            height = dice.uniform(0.9, 2.0)
            tone = dice.pick([colors.METAL, colors.METAL, colors.WOOD])
            palette = colors.palette(colors.pick(dice, tone))
            self.stage.add(dice.pick(FENCES), middle, side.sign * edge, 'fence', palette, scale=(length, 1, height))  # fmt: skip
        elif kind == 'hedge':
            size = (length, dice.uniform(0.6, 1.1), dice.uniform(0.9, 2.2))
            self.stage.add('hedge', middle, side.sign * (edge + 0.5), 'vegetation', colors.foliage(dice, 0), lift=-0.2, scale=size, shadow=1)  # fmt: skip
        else:
            kind = dice.pick(['stone', 'brick', 'plaster'])
            tone = colors.palette(
                colors.pick(dice, colors.BRICKS if kind == 'brick' else colors.WALLS)
            )
            self.stage.add(kind, middle, side.sign * (edge + 0.1), 'wall', tone, lift=-0.3, scale=(length, 0.3, dice.uniform(0.9, 1.7)), shadow=1)  # fmt: skip

    def _plant(self, s: float, d: float, height: float) -> None:
        if self.plan.road.in_side_street(s, 1.5):
            return
        dice = self.dice
        foliage = colors.foliage(dice, self.weather.season)
        if height < 2:
            size = (1.0, height * dice.uniform(1, 2), height)
            self.stage.add(
                'bush', s, d, 'vegetation', foliage, scale=size, yaw=dice.uniform(-0.3, 0.3)
            )
            return
        width = height * dice.uniform(0.8, 1.15)
        tree = dice.pick(TREES) if height > 4 else 'tree_round'
        self.stage.add(tree, s, d, 'vegetation', foliage, scale=(width, width, height), yaw=dice.uniform(-0.3, 0.3), shadow=2)  # fmt: skip

    # --- furniture ------------------------------------------------------------------------------

    def _furniture(self, side: Side) -> None:
        """Lamps, trees, signs, bollards, bins and posters along the kerb."""
        dice, d = self.dice, side.sign * (side.kerb + 0.35)
        metal = colors.pick(dice, colors.METAL)
        height, gap = dice.uniform(5.5, 9.5), dice.uniform(18, 34)
        for s in np.arange(dice.uniform(-10, 15), FAR_M, gap):
            if not self.plan.road.in_side_street(s, 1):
                self.stage.add('lamp', s, d, 'pole', colors.palette(metal), yaw=math.pi if side.sign > 0 else 0, scale=(height, height, height), shadow=0)  # fmt: skip
        if side.verge[1] - side.verge[0] > 1:
            tree, gap, tall = dice.pick(TREES), dice.uniform(7, 16), dice.uniform(5, 11)
            for s in np.arange(dice.uniform(0, 12), FAR_M - 10, gap):
                if not self.plan.road.in_side_street(s, 3) and dice.random() < 0.85:
                    foliage = colors.foliage(dice, self.weather.season)
                    size = tall * dice.uniform(0.85, 1.15)
                    self.stage.add(tree, s, side.sign * (side.kerb + 0.9), 'vegetation', foliage, scale=(size, size, size), yaw=dice.uniform(-0.2, 0.2), shadow=2)  # fmt: skip
        for s in dice.scattered(5, 120, dice.whole(2, 6)):
            self._sign(
                float(s),
                d + side.sign * dice.uniform(0, 0.4),
                facing_ego=side.sign < 0 or dice.random() < 0.5,
            )
        if dice.random() < 0.3:
            for s in np.arange(dice.uniform(0, 30), dice.uniform(35, 70), dice.uniform(1.5, 2.5)):
                if not self.plan.road.in_side_street(s, 0.5):
                    self.stage.add(
                        'pole', s, d, 'pole', colors.palette(metal), scale=(0.06, 0.06, 1.0)
                    )
        for s in dice.scattered(5, 90, dice.whole(0, 5)):
            self._clutter(float(s), side)

    def _sign(self, s: float, d: float, facing_ego: bool) -> None:
        dice = self.dice
        if self.plan.road.in_side_street(s, 1):
            return
        gray, height = colors.palette((0.42, 0.43, 0.43)), dice.uniform(2.1, 2.7)
        count = dice.pick((1, 1, 2))
        self.stage.add(
            'pole', s, d, 'pole', gray, scale=(0.04, 0.04, height + 0.3 + 0.66 * (count - 1))
        )
        for index in range(count):
            name, size = (
                (dice.pick(SIGNS) if facing_ego else 'disc'),
                dice.uniform(0.6, 0.8),
            )
            label = 'traffic sign' if facing_ego else 'static'  # the table counts fronts only
            yaw = math.pi + dice.uniform(-0.15, 0.15)
            palette = colors.palette((1, 1, 1)) if facing_ego else gray
            self.stage.add(
                name,
                s - 0.06,
                d,
                label,
                palette,
                lift=height + 0.7 * index,
                yaw=yaw,
                scale=(1, size, size),
            )

    def _clutter(self, s: float, side: Side) -> None:
        dice = self.dice
        if self.plan.road.in_side_street(s, 1):
            return
        d = side.sign * dice.uniform(side.walk[1] - 0.7, side.walk[1] - 0.3)
        kind = dice.random()
        if kind < 0.3:
            tone = colors.palette(colors.pick(dice, colors.METAL))
            self.stage.add('plain', s, d, 'static', tone, scale=(dice.uniform(0.5, 1.4), 0.45, dice.uniform(0.8, 1.4)), shadow=1)  # fmt: skip
        elif kind < 0.55:
            tone = colors.palette((0.1, 0.2, 0.12) if dice.random() < 0.5 else (0.16, 0.16, 0.17))
            self.stage.add('plain', s, d, 'static', tone, scale=(0.6, 0.55, 1.05), shadow=1)
        elif kind < 0.75:
            d = side.sign * (side.kerb + 1.1)
            self.stage.add(dice.pick(POSTERS), s, d, 'static', colors.palette(), lift=0.5, scale=(0.25, 1.3, 1.8), shadow=1)  # fmt: skip
        else:
            self.stage.add(
                'bench',
                s,
                d,
                'static',
                colors.palette(colors.pick(dice, colors.WOOD), (0.2, 0.2, 0.2)),
            )

    def _median(self, median: tuple[float, float]) -> None:
        dice, middle = self.dice, sum(median) / 2
        if self.plan.rails and median[0] < self.plan.rails[0] < median[1]:
            return
        kind = dice.pick(['trees', 'fence', 'lamps', 'hedge'])
        for s in np.arange(
            dice.uniform(0, 10), FAR_M - 15, {'trees': 9.0, 'lamps': 25.0}.get(kind, 10.0)
        ):
            if self.plan.road.in_side_street(s, 6):
                continue
            if kind == 'trees':
                self._plant(s, middle, dice.uniform(5, 9))
            elif kind == 'lamps':
                tone = colors.palette(colors.pick(dice, colors.METAL))
                self.stage.add('lamp', s, middle, 'pole', tone, scale=(8, 8, 8))
            elif kind == 'fence':
                tone = colors.palette(colors.pick(dice, colors.METAL))
                self.stage.add(
                    'bars', s, middle, 'fence', tone, lift=KERB_M * 0, scale=(10, 1, 1.1)
                )
            else:
                self.stage.add(
                    'hedge',
                    s,
                    middle,
                    'vegetation',
                    colors.foliage(dice, 0),
                    scale=(10, 0.9, 0.9),
                    shadow=1,
                )

    def _crossings(self) -> None:
        """Traffic lights or priority signs at the mouths of side streets."""
        dice = self.dice
        for index, (a, b) in enumerate(self.plan.road.side_streets):
            if index and dice.random() < 0.4:
                continue
            lit = dice.pick(['signal_red', 'signal_green', 'signal_amber'])
            for s, d in ((a - 1.5, self.plan.right_edge - 0.5), (a - 1.5, self.plan.left_edge + 0.5), (b + 1.5, self.plan.right_edge - 0.5)):  # fmt: skip
                self._signal(s, d, lit, math.pi if s < a or d < 0 else 0.0)
            if dice.random() < 0.5:
                self._signal_arm(b + 2.0, lit)

    def _signal(self, s: float, d: float, lit: str, yaw: float) -> None:
        tone = (0.2, 0.22, 0.21)
        lamp = colors.palette((0.06, 0.07, 0.06), (1, 1, 1, 0.9))
        self.stage.add('pole', s, d, 'pole', colors.palette(tone), scale=(0.07, 0.07, 3.4))
        self.stage.add(lit, s - 0.2, d, 'traffic light', lamp, lift=2.35, yaw=yaw)

    def _signal_arm(self, s: float, lit: str) -> None:
        """A mast with a head above the lane."""
        d, tone = self.plan.right_edge - 0.7, colors.palette((0.2, 0.22, 0.21))
        self.stage.add('pole', s, d, 'pole', tone, scale=(0.1, 0.1, 5.6))
        reach = abs(d)
        self.stage.add(
            'plain', s, d + reach / 2, 'pole', tone, lift=5.45, scale=(0.1, reach, 0.12)
        )
        self.stage.add(
            lit,
            s - 0.2,
            0.3,
            'traffic light',
            colors.palette((0.06, 0.07, 0.06), (1, 1, 1, 0.9)),
            lift=4.8,
            yaw=math.pi,
        )

    def _backdrop(self) -> None:
        """Closes the horizon: taller houses or woods behind the lots and at the end of the street."""
        dice = self.dice
        for sign in (1, -1):
            woods = dice.random() < (
                0.75 if self.plan.theme in ('outskirts', 'residential') else 0.25
            )
            for s in np.arange(0, FAR_M + 20, 16):
                d = sign * dice.uniform(38, 55)
                self._far(float(s), d, woods)
        for d in np.arange(-66, 67, 11):
            self._far(FAR_M + dice.uniform(8, 18), float(d), dice.random() < 0.6)

    def _far(self, s: float, d: float, woods: bool) -> None:
        dice = self.dice
        if woods:
            foliage = colors.foliage(dice, self.weather.season)
            self.stage.add(
                'tree_flat',
                s,
                d,
                'vegetation',
                foliage,
                lift=-3.0,
                scale=(18, 22, dice.uniform(9, 15)),
            )
            return
        tone = colors.palette(colors.pick(dice, colors.WALLS), (0.3, 0.3, 0.3))
        size = (13, 13, 3.0 * dice.whole(4, 9))
        self.stage.add(
            dice.pick(FACADES), s, d, 'building', tone, lift=-3.0, scale=size
        )

    # --- paint ----------------------------------------------------------------------------------

    def _paint(self) -> list[Patches]:
        """Lane marks, stop lines, crosswalks, patches, manholes and rails."""
        dice, white = self.dice, np.array((0.72, 0.72, 0.7)) * self.dice.uniform(0.75, 1.05)
        lines = [*self._lane_lines(), *self._crosswalks()]
        keep = [r for r in lines if r[1] > r[0]]
        road, dark = self.plan.road, np.array(self._asphalt())
        patches = [marks(road, np.array(keep), 'worn', white)] if keep else []
        holes = []
        for _ in range(dice.whole(3, 10)):
            s, d = (
                dice.uniform(4, 70),
                dice.uniform(self.plan.right_edge + 0.5, self.plan.left_edge - 2),
            )
            holes.append((s, s + dice.uniform(1, 7), d, d + dice.uniform(0.5, 2)))
        tone = dark * dice.uniform(0.7, 1.25)
        patches.insert(0, marks(road, np.array(holes), 'asphalt', tone))
        covers = []
        for knot in dice.sample(KNOTS[(KNOTS > 2) & (KNOTS < 60)].tolist(), 4):
            d = dice.uniform(self.plan.right_edge + 0.8, self.plan.left_edge - 0.8)
            covers.append((knot + 0.9, knot + 1.6, d - 0.35, d + 0.35))
        patches.insert(1, marks(road, np.array(covers), 'disc', dark * 0.6))
        rails = [
            (KNOTS[0], KNOTS[-1], d + off - 0.05, d + off + 0.05)
            for d in self.plan.rails
            for off in (-0.72, 0.72)
            if not self._on_median(d)
        ]
        if rails:
            patches.append(marks(road, np.array(rails), 'plain', np.array((0.3, 0.3, 0.31))))
        return patches

    def _on_median(self, d: float) -> bool:
        return bool(self.plan.median and self.plan.median[0] < d < self.plan.median[1])

    def _lane_lines(self) -> list[tuple[float, float, float, float]]:
        dice, lines = self.dice, []
        if self.plan.theme == 'residential' and dice.random() < 0.6:
            return lines
        dash, gap = dice.pick([(3.0, 6.0), (6.0, 12.0), (4.0, 8.0), (2.0, 2.0)])
        edges = sorted(
            {
                round(lane.d + side * lane.width / 2, 3)
                for lane in self.plan.lanes
                for side in (1, -1)
            }
        )
        for edge in edges:
            near = [
                lane for lane in self.plan.lanes if abs(abs(lane.d - edge) - lane.width / 2) < 1e-2
            ]
            if len(near) < 2 or self._at_median(edge):
                continue
            parking = any(lane.way == 0 for lane in near)
            if parking:
                lines += [(s, s + 0.12, *sorted((edge, edge + math.copysign(1.8, edge)))) for s in np.arange(0, 90, 5.5)] if dice.random() < 0.4 else []  # fmt: skip
                continue
            solid = near[0].way != near[1].way and dice.random() < 0.4
            starts = np.arange(KNOTS[0], FAR_M, dash + gap)
            pieces = (
                [(KNOTS[0], FAR_M)] if solid else [(float(s), float(s) + dash) for s in starts]
            )
            lines += [
                (*piece, edge - 0.065, edge + 0.065) for piece in self._outside_crossings(pieces)
            ]
        return lines

    def _at_median(self, edge: float) -> bool:
        return bool(self.plan.median and min(abs(edge - m) for m in self.plan.median) < 0.05)

    def _outside_crossings(self, pieces: list[tuple[float, float]]) -> list[tuple[float, float]]:
        for a, b in self.plan.road.side_streets:
            parts = []
            for s0, s1 in pieces:
                parts += [(s0, min(s1, a - 3)), (max(s0, b + 3), s1)]
            pieces = [p for p in parts if p[1] - p[0] > 0.2]
        return pieces

    def _crosswalks(self) -> list[tuple[float, float, float, float]]:
        dice, lines = self.dice, []
        left, right = self.plan.left_edge, self.plan.right_edge
        own = [lane for lane in self.plan.lanes if lane.way == 1]
        for a, b in self.plan.road.side_streets:
            low, high = min(p.d - p.width / 2 for p in own), max(p.d + p.width / 2 for p in own)
            lines.append((a - 6.0, a - 5.55, low + 0.15, high - 0.15))
            for start in (a - 4.6, b + 1.2) if dice.random() < 0.6 else ():
                lines += [
                    (start, start + 3.2, d, d + 0.5)
                    for d in np.arange(right + 0.3, left - 0.6, 1.0)
                    if not self._in_median(d)
                ]
        return lines

    def _in_median(self, d: float) -> bool:
        return bool(self.plan.median and self.plan.median[0] - 0.6 < d < self.plan.median[1] + 0.1)


def sidewalk_middle(side: Side) -> float:
    """d in the middle of a sidewalk."""
    return side.sign * (side.walk[0] + side.walk[1]) / 2
