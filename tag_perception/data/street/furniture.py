"""What stands along the kerb: lamps, trees, signs, signals, bollards, bins, benches, posters."""

from __future__ import annotations

import math

from tag_perception.data.street import colors
from tag_perception.data.street.dice import every
from tag_perception.data.street.lots import FAR_M, TREES, Builder
from tag_perception.data.street.scenery import POSTERS, SIGNS
from tag_perception.data.street.town import Side

SIGNAL_GRAY = (0.2, 0.22, 0.21)


class Furniture(Builder):
    """Furnishes sidewalks, medians and the mouths of side streets."""

    def build(self) -> None:
        """Everything."""
        for side in self.plan.sides:
            self._lamps(side)
            self._trees(side)
            self._signs(side)
            self._bollards(side)
            for s in self.dice.scattered(5, 90, self.dice.whole(0, 5)):
                self._clutter(s, side)
        self._median()
        self._signals()

    def _free(self, s: float, margin: float = 1.0) -> bool:
        return not self.plan.road.in_side_street(s, margin)

    def _lamps(self, side: Side) -> None:
        dice, d = self.dice, side.sign * (side.kerb + 0.35)
        tone, height = colors.palette(colors.pick(dice, colors.METAL)), dice.uniform(5.5, 9.5)
        yaw = math.pi if side.sign > 0 else 0.0
        for s in every(dice.uniform(-10, 15), FAR_M, dice.uniform(18, 34)):
            if self._free(s):
                self.stage.add('lamp', s, d, 'pole', tone, yaw=yaw, scale=(height, height, height))

    def _trees(self, side: Side) -> None:
        """A row of trees of one kind where the verge is wide enough."""
        dice = self.dice
        if side.verge[1] - side.verge[0] < 1:
            return
        tree, gap, tall = dice.pick(TREES), dice.uniform(7, 16), dice.uniform(5, 11)
        for s in every(dice.uniform(0, 12), FAR_M - 10, gap):
            if self._free(s, 3) and dice.chance(0.85):
                size, d = tall * dice.uniform(0.85, 1.15), side.sign * (side.kerb + 0.9)
                foliage = colors.foliage(dice, self.weather.season)
                self.tree(tree, s, d, foliage, size, size, yaw=dice.uniform(-0.2, 0.2))

    def _signs(self, side: Side) -> None:
        dice = self.dice
        for s in dice.scattered(5, 110, dice.whole(2, 6)):
            if self._free(s):
                d = side.sign * (side.kerb + 0.35 + dice.uniform(0, 0.4))
                self._sign(s, d, faces_ego=side.sign < 0 or dice.chance(0.5))

    def _sign(self, s: float, d: float, faces_ego: bool) -> None:
        """One or two plates on a post. Only fronts are traffic signs; backs are static."""
        dice, gray = self.dice, colors.palette((0.42, 0.43, 0.43))
        height, count = dice.uniform(2.1, 2.7), dice.pick((1, 1, 2))
        post = (0.04, 0.04, height + 0.3 + 0.66 * (count - 1))
        self.stage.add('pole', s, d, 'pole', gray, scale=post)
        for index in range(count):
            name, label, tone = (
                (dice.pick(SIGNS), 'traffic sign', colors.palette())
                if faces_ego
                else ('disc', 'static', gray)
            )
            size, lift = dice.uniform(0.6, 0.8), height + 0.7 * index
            yaw = math.pi + dice.uniform(-0.15, 0.15)
            plate = (1.0, size, size)
            self.stage.add(name, s - 0.06, d, label, tone, lift=lift, yaw=yaw, scale=plate)

    def _bollards(self, side: Side) -> None:
        dice, d = self.dice, side.sign * (side.kerb + 0.35)
        if dice.chance(0.3):
            tone = colors.palette(colors.pick(dice, colors.METAL))
            for s in every(dice.uniform(0, 30), dice.uniform(35, 70), dice.uniform(1.5, 2.5)):
                if self._free(s, 0.5):
                    self.stage.add('pole', s, d, 'pole', tone, scale=(0.06, 0.06, 1.0))

    def _clutter(self, s: float, side: Side) -> None:
        """A cabinet, a bin, a poster or a bench."""
        dice = self.dice
        if not self._free(s):
            return
        d = side.sign * dice.uniform(side.walk[1] - 0.7, side.walk[1] - 0.3)
        kind = dice.pick(('cabinet', 'bin', 'poster', 'bench'))
        if kind == 'cabinet':
            size = (dice.uniform(0.5, 1.4), 0.45, dice.uniform(0.8, 1.4))
            self.block(
                'plain', s, d, 'static', colors.palette(colors.pick(dice, colors.METAL)), size
            )
        elif kind == 'bin':
            tone = colors.palette(dice.pick(((0.1, 0.2, 0.12), (0.16, 0.16, 0.17))))
            self.block('plain', s, d, 'static', tone, (0.6, 0.55, 1.05))
        elif kind == 'poster':
            d = side.sign * (side.kerb + 1.1)
            size, tone = (0.25, 1.3, 1.8), colors.palette()
            self.stage.add(
                dice.pick(POSTERS), s, d, 'static', tone, lift=0.5, scale=size, shadow=1
            )
        else:
            tone = colors.palette(colors.pick(dice, colors.WOOD), (0.2, 0.2, 0.2))
            self.stage.add('bench', s, d, 'static', tone)

    def _median(self) -> None:
        """Trees, lamps, a fence or a hedge between the carriageways, unless a tram runs there."""
        dice, median = self.dice, self.plan.median
        if median is None or any(self.plan.in_median(d) for d in self.plan.rails):
            return
        kind, middle = dice.pick(('trees', 'fence', 'lamps', 'hedge')), sum(median) / 2
        tone = colors.palette(colors.pick(dice, colors.METAL))
        gap = {'trees': 9.0, 'lamps': 25.0}.get(kind, 10.0)
        for s in every(dice.uniform(0, 10), FAR_M - 15, gap):
            if not self._free(s, 6):
                continue
            if kind == 'trees':
                self.plant(s, middle, dice.uniform(5, 9))
            elif kind == 'lamps':
                self.stage.add('lamp', s, middle, 'pole', tone, scale=(8.0, 8.0, 8.0))
            elif kind == 'fence':
                self.stage.add('bars', s, middle, 'fence', tone, scale=(10.0, 1.0, 1.1))
            else:
                leaves = colors.foliage(dice, 0)
                self.block('hedge', s, middle, 'vegetation', leaves, (10.0, 0.9, 0.9))

    def _signals(self) -> None:
        """Traffic lights at the mouths of side streets; most crossings have them."""
        dice = self.dice
        right, left = self.plan.right_edge - 0.5, self.plan.left_edge + 0.5
        for index, (a, b) in enumerate(self.plan.road.side_streets):
            if index and dice.chance(0.4):
                continue
            lit = dice.pick(('signal_red', 'signal_green', 'signal_amber'))
            for s, d in ((a - 1.5, right), (a - 1.5, left), (b + 1.5, right)):
                self._pole(s, d, 0.07, 3.4)
                self._head(s - 0.2, d, 2.35, lit)
            if dice.chance(0.5):  # a mast that holds one over the lane
                s, reach = b + 2.0, abs(right)
                self._pole(s, right - 0.2, 0.1, 5.6)
                arm = (0.1, reach, 0.12)
                tone, d = colors.palette(SIGNAL_GRAY), right - 0.2 + reach / 2
                self.stage.add('plain', s, d, 'pole', tone, lift=5.45, scale=arm)
                self._head(s - 0.2, 0.3, 4.8, lit)

    def _pole(self, s: float, d: float, radius: float, height: float) -> None:
        tone = colors.palette(SIGNAL_GRAY)
        self.stage.add('pole', s, d, 'pole', tone, scale=(radius, radius, height))

    def _head(self, s: float, d: float, lift: float, lit: str) -> None:
        lamp = colors.palette((0.06, 0.07, 0.06), (1.0, 1.0, 1.0, 0.9))
        self.stage.add(lit, s, d, 'traffic light', lamp, lift=lift, yaw=math.pi)
