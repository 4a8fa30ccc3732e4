"""Vehicles and people of a street at a moment in time."""

from __future__ import annotations

import math

from tag_perception.data.street import colors
from tag_perception.data.street.dice import Dice, every
from tag_perception.data.street.people import BUILDS, WALK_CYCLE_M, WALK_PHASES
from tag_perception.data.street.stage import Stage
from tag_perception.data.street.town import Lane, Plan, Side
from tag_perception.data.street.vehicles import BY_LABEL, Model
from tag_perception.data.street.weather import Weather

TWO_WHEELERS = ('motorcycle', 'bicycle')
MOVING = {'car': 6.0, 'truck': 1.0, 'bus': 0.9, 'motorcycle': 1.2, 'bicycle': 1.1}
"""Shares of the classes in a lane; a lane with tracks also carries trams."""
TRAM_SHARE = 3.5
PARKED = {'car': 0.86, 'truck': 0.035, 'bus': 0.02, 'motorcycle': 0.085}
WAITING = {'car': 3.0, 'truck': 1.0, 'bus': 1.0, 'motorcycle': 1.2, 'bicycle': 1.2}
PEDESTRIANS = {'urban': 13.0, 'avenue': 9.0, 'residential': 5.0, 'outskirts': 2.0}
"""Mean number on one sidewalk by theme."""
GAP_M = 7.0
"""Shortest free road between two moving vehicles of a lane."""
REACH_M = 130.0
"""Vehicles are placed up to here."""


class Traffic:
    """Fills a stage with everything that can move; `time_s` is 0 at the annotated frame.

    All chance is drawn in the same order whatever the time, so a sequence shows the same vehicles.
    """

    def __init__(
        self, plan: Plan, stage: Stage, weather: Weather, dice: Dice, time_s: float
    ) -> None:
        self.plan, self.stage, self.weather = plan, stage, weather
        self.dice, self.time_s = dice, time_s
        slow, steady, fast = dice.uniform(3, 9), dice.uniform(3, 9), dice.uniform(9, 15)
        self.speed = dice.pick((0.0, slow, steady, fast))
        """Of the ego vehicle, metres per second."""

    def build(self) -> None:
        """Parked vehicles, moving vehicles, trams, side-street traffic, bicycles, people."""
        for lane in self.plan.lanes:
            if lane.way:
                self._moving(lane)
            else:
                self._parked(lane)
        for d in self.plan.rails:
            if self.plan.in_median(d) and self.dice.chance(0.8):
                model = self.dice.pick(BY_LABEL['train'])
                self._vehicle(model, self.dice.uniform(18, 80), d, 0.0, speed=8.0)
        for street in self.plan.road.side_streets:
            self._waiting(street)
            self._crossing(street)
        for side in self.plan.sides:
            self._bicycles(side)
            self._pedestrians(side)
        self._people_crossing()

    def _free(self, s: float, margin: float = 1.0) -> bool:
        return not self.plan.road.in_side_street(s, margin)

    # Vehicles

    def _vehicle(
        self,
        model: Model,
        s: float,
        d: float,
        yaw: float,
        speed: float = 0.0,
        rider: bool = False,
        group: bool = False,
    ) -> None:
        """One vehicle; `speed` is along the street for yaw near 0, against it for yaw near pi."""
        dice = self.dice
        length, width, height = (dice.uniform(0.94, 1.06) for _ in range(3))
        paint = colors.vehicle(dice, model.label, self.weather.lamps if speed or rider else 0.0)
        s += speed * self.time_s * math.copysign(1.0, math.cos(yaw))
        self.stage.add(
            model.name, s, d, model.label, paint, yaw=yaw, scale=(length, width, height),
            tilted=True, shadow=1, group=group,
        )  # fmt: skip
        if rider and model.seat:
            x, lift = model.seat[0] * length, model.seat[2] * height
            biker = model.label == 'motorcycle'
            pose = f'biker_{dice.whole(0, 2)}' if biker else f'cyclist_{dice.whole(0, 3)}'
            size, tone = dice.uniform(0.92, 1.04), colors.person(dice)
            s, d = s + x * math.cos(yaw), d + x * math.sin(yaw)
            scale = (size, size, size)
            self.stage.add(pose, s, d, 'rider', tone, lift=lift, yaw=yaw, scale=scale)

    def _moving(self, lane: Lane) -> None:
        """A queue of vehicles at one speed; in the ego lane that of the ego vehicle."""
        dice, own = self.dice, lane.d == 0.0
        shares = MOVING | ({'train': TRAM_SHARE} if lane.d in self.plan.rails else {})
        spacing = dice.pick((12.0, 30.0, 70.0))
        queue = self.speed == 0 and lane.way == 1
        s = 7.5 + dice.exponential(spacing) if own else dice.uniform(-12, 30)
        cruise = dice.uniform(0.8, 1.3) * max(self.speed, 6.0)
        speed = self.speed if own or queue else cruise
        while s < REACH_M:
            model = dice.pick(BY_LABEL[dice.weighted(shares)])
            half, two = float(model.shape.high[0]), model.label in TWO_WHEELERS
            aside = (lane.width / 2 - 0.7) * dice.uniform(0.4, 1) if two else 0.0
            d = lane.d + dice.gauss(0, 0.12) - lane.way * aside
            yaw = (0.0 if lane.way > 0 else math.pi) + dice.gauss(0, 0.015)
            self._vehicle(model, s + half, d, yaw, speed, rider=two)
            s += 2 * half + GAP_M * (0.3 if queue else 1) + dice.exponential(spacing)

    def _parked(self, lane: Lane) -> None:
        """A row of parked vehicles with gaps, in a few streets with two wheels on the kerb."""
        dice, sign = self.dice, math.copysign(1, lane.d)
        filled, s = dice.uniform(0.25, 0.95), dice.uniform(-6, 8)
        on_kerb = not lane.across and dice.chance(0.15)  # gives them a real roll angle
        while s < REACH_M - 5:
            label = dice.weighted(PARKED)
            if lane.across and label in ('truck', 'bus'):
                label = 'car'
            model = dice.pick(BY_LABEL[label])
            half = float(model.shape.high[1 if lane.across else 0])
            s += half
            if dice.chance(filled) and self._free(s, half + 4):
                self._park(model, lane, s, sign, on_kerb)
            s += half + dice.uniform(0.5, 1.3)

    def _park(self, model: Model, lane: Lane, s: float, sign: float, on_kerb: bool) -> None:
        dice = self.dice
        if lane.across:
            yaw = dice.pick((1, 1, -1)) * sign * math.pi / 2 + dice.gauss(0, 0.03)
            self._vehicle(model, s, lane.d + dice.gauss(0, 0.15), yaw)
            return
        forward = dice.chance(0.9 if sign < 0 else 0.2)
        yaw = (0.0 if forward else math.pi) + dice.gauss(0, 0.025)
        kerb = self.plan.left_edge if sign > 0 else self.plan.right_edge
        half = 0.0 if on_kerb else float(model.shape.high[1])
        self._vehicle(model, s, kerb - sign * (half + dice.uniform(0.1, 0.35)), yaw)

    def _waiting(self, street: tuple[float, float]) -> None:
        """Vehicles in the mouths of a side street, about to come out."""
        dice, (a, b) = self.dice, street
        for sign, edge in ((1, self.plan.left_edge), (-1, -self.plan.right_edge)):
            model = dice.pick(BY_LABEL[dice.weighted(WAITING)])
            behind = float(model.shape.high[0]) + dice.uniform(1.0, 5.0)
            s = a + 0.28 * (b - a) if sign > 0 else b - 0.28 * (b - a)
            yaw = -sign * math.pi / 2 + dice.gauss(0, 0.03)
            if dice.chance(0.55):
                rider = model.label in TWO_WHEELERS
                self._vehicle(model, s, sign * (edge + behind), yaw, rider=rider)

    def _crossing(self, street: tuple[float, float]) -> None:
        """One vehicle that crosses before the waiting ego vehicle."""
        dice, (a, b) = self.dice, street
        model, sign = dice.pick(BY_LABEL[dice.weighted(WAITING)]), dice.pick((1, -1))
        start = dice.uniform(self.plan.right_edge, self.plan.left_edge)
        if self.speed == 0 and a > 12 and dice.chance(0.5):
            s = a + 0.28 * (b - a) if sign < 0 else b - 0.28 * (b - a)
            d, rider = start + sign * 6.0 * self.time_s, model.label in TWO_WHEELERS
            self._vehicle(model, s, d, sign * math.pi / 2, rider=rider)

    def _bicycles(self, side: Side) -> None:
        """Bicycles and motorcycles on the sidewalk, and now and then a rack full of them."""
        dice = self.dice
        for _ in range(dice.poisson(1.6)):
            s = dice.uniform(6, 60)
            d = side.sign * dice.uniform(side.kerb + 0.5, side.walk[1] - 0.4)
            model = dice.pick(BY_LABEL[dice.weighted({'bicycle': 0.75, 'motorcycle': 0.25})])
            yaw = dice.pick((0.0, math.pi, math.pi / 2)) + dice.gauss(0, 0.15)
            if self._free(s):
                self._vehicle(model, s, d, yaw)
        start, length, rack = dice.uniform(10, 60), dice.uniform(2, 5), dice.chance(0.2)
        for s in every(start, start + length * rack, 0.45):
            yaw = side.sign * math.pi / 2 + dice.gauss(0, 0.06)
            if self._free(s):
                model = dice.pick(BY_LABEL['bicycle'])
                self._vehicle(model, s, side.sign * (side.walk[1] - 1.0), yaw, group=True)

    # People

    def _person(self, s: float, d: float, yaw: float, speed: float) -> None:
        """One adult or child, walking or standing."""
        dice = self.dice
        build, phase, tone = dice.pick(BUILDS).name, dice.random(), colors.person(dice)
        size = dice.uniform(0.62, 0.8) if dice.chance(0.1) else dice.uniform(0.92, 1.07)
        walked = speed * self.time_s
        stride = int((phase + walked / (WALK_CYCLE_M * size)) * WALK_PHASES) % WALK_PHASES
        pose = f'walk_{build}_{stride}' if speed else f'stand_{build}'
        s, d = s + walked * math.cos(yaw), d + walked * math.sin(yaw)
        scale = (size, size * dice.uniform(0.92, 1.15), size)
        self.stage.add(pose, s, d, 'person', tone, yaw=yaw, scale=scale, shadow=1)

    def _pedestrians(self, side: Side) -> None:
        dice = self.dice
        for _ in range(dice.poisson(PEDESTRIANS[self.plan.theme] * dice.uniform(0.2, 1.6))):
            s = dice.uniform(5, 75)
            d = side.sign * dice.uniform(side.walk[0] + 0.2, side.walk[1] - 0.3)
            if dice.chance(0.25):
                self._person(s, d, dice.uniform(-math.pi, math.pi), 0.0)
                continue
            yaw, speed = dice.pick((0.0, math.pi)) + dice.gauss(0, 0.12), dice.uniform(0.9, 1.6)
            self._person(s, d, yaw, speed)
            if dice.chance(0.3):  # in company
                beside = d - side.sign * dice.uniform(0.5, 0.7)
                self._person(s + dice.gauss(0, 0.2), beside, yaw, speed)

    def _people_crossing(self) -> None:
        """People on the crosswalks, not right under the ego vehicle's wheels."""
        dice = self.dice
        for a, b in self.plan.road.side_streets[:2]:
            for _ in range(dice.poisson(1.2)):
                s = dice.pick((a - 3.0, b + 2.8)) + dice.gauss(0, 0.6)
                d = dice.uniform(self.plan.right_edge - 1, self.plan.left_edge + 1)
                yaw = dice.pick((1, -1)) * math.pi / 2 + dice.gauss(0, 0.1)
                if s > 8 + self.speed * 0.6:
                    self._person(s, d, yaw, dice.uniform(0.9, 1.5))
