"""Vehicles and people of a street at a moment in time."""

from __future__ import annotations

import math

import numpy as np

from tag_perception.data.street import colors
from tag_perception.data.street.people import BUILDS, WALK_CYCLE_M, WALK_PHASES
from tag_perception.data.street.dice import Dice
from tag_perception.data.street.road import KERB_M
from tag_perception.data.street.stage import Stage
from tag_perception.data.street.town import Lane, Plan, Side
from tag_perception.data.street.vehicles import BY_LABEL, Model
from tag_perception.data.street.weather import Weather

TWO_WHEELERS = ('motorcycle', 'bicycle')
GAP_M = 7.0
"""Shortest free road between two vehicles of a lane."""


class Traffic:
    """Fills a stage with everything that can move; `time_s` is 0 at the annotated frame."""

    def __init__(
        self, plan: Plan, stage: Stage, weather: Weather, dice: Dice, time_s: float
    ) -> None:
        self.plan, self.stage, self.weather, self.dice, self.time_s = (
            plan,
            stage,
            weather,
            dice,
            time_s,
        )
        self.speed = float(
            dice.pick((0.0, dice.uniform(3, 9), dice.uniform(3, 9), dice.uniform(9, 15)))
        )
        """Of the ego vehicle, metres per second."""

    def build(self) -> None:
        """Parked vehicles, moving vehicles, side-street traffic, people."""
        for lane in self.plan.lanes:
            if lane.way == 0:
                self._parked(lane)
            else:
                self._moving(lane)
        for d in self.plan.rails:
            if (
                self.plan.median
                and self.plan.median[0] < d < self.plan.median[1]
                and self.dice.random() < 0.75
            ):
                self._vehicle(
                    self.dice.pick(BY_LABEL['train']),
                    self.dice.uniform(18, 80),
                    d,
                    0.0,
                    8.0,
                    lift=-0.02,
                )
        for street in self.plan.road.side_streets:
            self._crossing(street)
        for side in self.plan.sides:
            self._bicycles(side)
            self._pedestrians(side)
        self._jaywalkers()

    # --- vehicles -------------------------------------------------------------------------------

    def _vehicle(
        self,
        model: Model,
        s: float,
        d: float,
        yaw: float,
        speed: float,
        rider: bool = False,
        lift: float = 0.0,
        group: bool = False,
    ) -> None:
        dice = self.dice
        stretch = tuple(dice.scattered(0.94, 1.06, 3))
        paint = colors.vehicle(dice, model.label, self.weather.lamps if speed or rider else 0.0)
        s = s + speed * self.time_s * (1 if abs(yaw) < math.pi / 2 else -1)
        self.stage.add(
            model.name,
            s,
            d,
            model.label,
            paint,
            lift=lift,
            yaw=yaw,
            scale=stretch,
            tilted=True,
            shadow=1,
            group=group,
        )
        if rider and model.seat:
            self._rider(model, s, d, yaw, stretch)

    def _rider(
        self, model: Model, s: float, d: float, yaw: float, stretch: tuple[float, ...]
    ) -> None:
        dice = self.dice
        biker = model.label == 'motorcycle'
        pose = f'biker_{dice.whole(0, 2)}' if biker else f'cyclist_{dice.whole(0, 3)}'
        x, _, z = model.seat or (0.0, 0.0, 0.0)
        x, z = x * stretch[0], z * stretch[2]
        size = dice.uniform(0.92, 1.04)
        self.stage.add(
            pose,
            s + x * math.cos(yaw),
            d + x * math.sin(yaw),
            'rider',
            colors.person(dice),
            lift=z,
            yaw=yaw,
            scale=(size, size, size),
        )

    def _choose(self, lane: Lane) -> Model:
        dice = self.dice
        shares = {'car': 6.0, 'truck': 1.0, 'bus': 0.9, 'motorcycle': 1.1, 'bicycle': 0.9}
        if lane.d in self.plan.rails:
            shares['train'] = 1.6
        return dice.pick(BY_LABEL[dice.weighted(shares)])

    def _moving(self, lane: Lane) -> None:
        """A queue of vehicles; in the ego lane nobody behind the bumper of the one ahead."""
        dice = self.dice
        own = lane.d == 0.0
        density = dice.pick((12.0, 30.0, 70.0))
        stand_still = self.speed == 0 and lane.way == 1
        s = (7.5 + dice.exponential(density)) if own else dice.uniform(-12, 30)
        speed = self.speed if own or stand_still else dice.uniform(0.8, 1.3) * max(self.speed, 6.0)
        while s < 130:
            model = self._choose(lane)
            half = float(model.shape.high[0])
            s += half
            two = model.label in TWO_WHEELERS
            d = (
                lane.d
                + dice.gauss(0, 0.12)
                + (-lane.way * (lane.width / 2 - 0.7) * dice.uniform(0.4, 1) if two else 0)
            )
            yaw = (0.0 if lane.way > 0 else math.pi) + dice.gauss(0, 0.015)
            self._vehicle(model, s, d, yaw, speed, rider=two)
            s += half + GAP_M * (0.3 if stand_still else 1) + dice.exponential(density)

    def _parked(self, lane: Lane) -> None:
        dice, sign = self.dice, math.copysign(1, lane.d)
        fill, s = dice.uniform(0.25, 0.95), dice.uniform(-6, 8)
        up = (
            lane.kind == 'along' and dice.random() < 0.15
        )  # two wheels on the kerb: a real roll angle
        while s < 125:
            chance = dice.random()
            label = (
                'car'
                if chance < 0.86
                else dice.pick(['truck', 'motorcycle', 'motorcycle', 'bus'])
            )
            if lane.kind == 'across' and label in ('truck', 'bus'):
                label = 'car'
            model = dice.pick(BY_LABEL[label])
            half = float(model.shape.high[0 if lane.kind == 'along' else 1])
            s += half
            ends = (self.plan.road.in_side_street(s, half + 4), dice.random() > fill)
            if not any(ends):
                self._park(model, lane, s, sign, up)
            s += half + dice.uniform(0.5, 1.3)

    def _park(self, model: Model, lane: Lane, s: float, sign: float, up: bool) -> None:
        dice = self.dice
        if lane.kind == 'across':
            yaw = sign * math.pi / 2 * (1 if dice.random() < 0.6 else -1) + dice.gauss(0, 0.03)
            self._vehicle(model, s, lane.d + dice.gauss(0, 0.15), yaw, 0.0)
            return
        width = float(model.shape.high[1])
        forward = 0.9 if sign < 0 else 0.2
        yaw = (0.0 if dice.random() < forward else math.pi) + dice.gauss(0, 0.025)
        kerb = self.plan.left_edge if sign > 0 else self.plan.right_edge
        d = (
            kerb - sign * (width + dice.uniform(0.1, 0.3))
            if not up
            else kerb - sign * dice.uniform(0.2, 0.4)
        )
        self._vehicle(model, s, d, yaw, 0.0)

    def _crossing(self, street: tuple[float, float]) -> None:
        """Vehicles waiting in, or coming out of, a side street."""
        dice, (a, b) = self.dice, street
        for sign in (1, -1):
            edge = self.plan.left_edge if sign > 0 else -self.plan.right_edge
            if dice.random() < 0.55:
                label = dice.pick(['car', 'car', 'car', 'truck', 'bus', 'motorcycle', 'bicycle']
                )
                model = dice.pick(BY_LABEL[label])
                lane = a + 0.28 * (b - a) if sign > 0 else b - 0.28 * (b - a)
                d = sign * (edge + float(model.shape.high[0]) + dice.uniform(1.0, 5.0))
                self._vehicle(
                    model,
                    lane,
                    d,
                    -sign * math.pi / 2 + dice.gauss(0, 0.03),
                    0.0,
                    rider=label in TWO_WHEELERS,
                )
        if self.speed == 0 and a > 12 and dice.random() < 0.5:
            label = dice.pick(['car', 'bus', 'truck', 'bicycle', 'motorcycle', 'car'])
            sign = 1 if dice.random() < 0.5 else -1
            lane = a + 0.28 * (b - a) if sign < 0 else b - 0.28 * (b - a)
            model = dice.pick(BY_LABEL[label])
            d = dice.uniform(self.plan.right_edge, self.plan.left_edge) + sign * 6.0 * self.time_s
            self._vehicle(model, lane, d, sign * math.pi / 2, 0.0, rider=label in TWO_WHEELERS)

    def _bicycles(self, side: Side) -> None:
        """Leaning at walls, standing at posts, and now and then a rack full of them."""
        dice = self.dice
        for _ in range(dice.poisson(1.4)):
            s, d = dice.uniform(6, 60), side.sign * dice.uniform(side.kerb + 0.5, side.walk[1] - 0.4)
            if not self.plan.road.in_side_street(s, 1):
                model = dice.pick(BY_LABEL['bicycle' if dice.random() < 0.8 else 'motorcycle']
                )
                self._vehicle(
                    model,
                    s,
                    d,
                    dice.pick([0.0, math.pi, math.pi / 2]) + dice.gauss(0, 0.15),
                    0.0,
                )
        if dice.random() < 0.2:
            start = dice.uniform(10, 60)
            for s in np.arange(start, start + dice.uniform(2, 5), 0.45):
                if not self.plan.road.in_side_street(s, 1):
                    self._vehicle(
                        dice.pick(BY_LABEL['bicycle']),
                        s,
                        side.sign * (side.walk[1] - 1.0),
                        side.sign * math.pi / 2 + dice.gauss(0, 0.06),
                        0.0,
                        group=True,
                    )

    # --- people ---------------------------------------------------------------------------------

    def _person(self, s: float, d: float, yaw: float, speed: float) -> None:
        dice = self.dice
        build = dice.pick(BUILDS).name
        child = dice.random() < 0.1
        size = dice.uniform(0.62, 0.8) if child else dice.uniform(0.92, 1.07)
        palette, phase = colors.person(dice), dice.random()
        walked = speed * self.time_s
        pose = f'stand_{build}'
        if speed:
            pose = f'walk_{build}_{int((phase + walked / WALK_CYCLE_M / size) * WALK_PHASES) % WALK_PHASES}'
        s, d = s + walked * math.cos(yaw), d + walked * math.sin(yaw)
        self.stage.add(
            pose,
            s,
            d,
            'person',
            palette,
            yaw=yaw,
            scale=(size, size * dice.uniform(0.92, 1.15), size),
            shadow=1,
        )

    def _pedestrians(self, side: Side) -> None:
        dice = self.dice
        busy = {'urban': 9.0, 'avenue': 6.0, 'residential': 3.0, 'outskirts': 1.2}[self.plan.theme]
        for _ in range(dice.poisson(busy * dice.uniform(0.2, 1.6))):
            s = dice.uniform(5, 75)
            d = side.sign * dice.uniform(side.walk[0] + 0.2, side.walk[1] - 0.3)
            if dice.random() < 0.25:
                self._person(s, d, dice.uniform(-math.pi, math.pi), 0.0)
                continue
            yaw = dice.pick([0.0, math.pi]) + dice.gauss(0, 0.12)
            self._person(s, d, yaw, dice.uniform(0.9, 1.6))
            if dice.random() < 0.3:  # in company
                self._person(
                    s + dice.gauss(0, 0.2), d - side.sign * dice.uniform(0.5, 0.7), yaw, 0.0
                )

    def _jaywalkers(self) -> None:
        """People on the crosswalks and at the kerb."""
        dice = self.dice
        for a, b in self.plan.road.side_streets[:2]:
            for _ in range(dice.poisson(0.9)):
                s = dice.pick([a - 3.0, b + 2.8]) + dice.gauss(0, 0.6)
                d = dice.uniform(self.plan.right_edge - 1, self.plan.left_edge + 1)
                if s > 8 + self.speed * 0.6:
                    self._person(
                        s,
                        d,
                        dice.pick([1, -1]) * math.pi / 2 + dice.gauss(0, 0.1),
                        dice.uniform(0.9, 1.5),
                    )
