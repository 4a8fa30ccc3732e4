"""Paint and patches on the carriageway."""

from __future__ import annotations

import math

import numpy as np

from tag_perception.data.street.dice import Dice, every
from tag_perception.data.street.lots import FAR_M
from tag_perception.data.street.road import KNOTS, Patches, marks
from tag_perception.data.street.town import Lane, Plan

Rectangle = tuple[float, float, float, float]
"""s0, s1, d0, d1, metres."""
LINE_M = 0.13
RAIL_M = 0.72
"""Half the gauge of a tram track, about."""


def paint(plan: Plan, dice: Dice) -> list[Patches]:
    """Mended spots, manhole covers, rails, then lines, stop lines and crosswalks over them."""
    road, dark = plan.road, np.array(plan.asphalt)
    white = np.array((0.72, 0.72, 0.7)) * dice.uniform(0.75, 1.05)
    spots = []
    for _ in range(dice.whole(3, 10)):
        s, d = dice.uniform(4, 70), dice.uniform(plan.right_edge + 0.5, plan.left_edge - 2)
        spots.append((s, s + dice.uniform(1, 7), d, d + dice.uniform(0.5, 2)))
    covers = []
    for knot in dice.sample(KNOTS[(KNOTS > 2) & (KNOTS < 60)].tolist(), 4):
        d = dice.uniform(plan.right_edge + 0.8, plan.left_edge - 0.8)
        covers.append((knot + 0.9, knot + 1.6, d - 0.35, d + 0.35))
    rails = [
        (KNOTS[0], KNOTS[-1], d + side - 0.05, d + side + 0.05)
        for d in plan.rails
        for side in (-RAIL_M, RAIL_M)
        if not plan.in_median(d)
    ]
    layers = (
        (spots, 'asphalt', dark * dice.uniform(0.7, 1.25)),
        (covers, 'disc', dark * 0.6),
        (rails, 'plain', np.array((0.3, 0.3, 0.31))),
        ([*_lane_lines(plan, dice), *_crossings(plan, dice)], 'worn', white),
    )
    return [marks(road, np.array(r), texture, color) for r, texture, color in layers if r]


def _lane_lines(plan: Plan, dice: Dice) -> list[Rectangle]:
    """Lines between lanes, dashed or solid, and the ends of parking bays."""
    lines: list[Rectangle] = []
    if plan.theme == 'residential' and dice.chance(0.6):
        return lines
    dash, gap = dice.pick(((3.0, 6.0), (6.0, 12.0), (4.0, 8.0), (2.0, 2.0)))
    edges = {round(lane.d + side * lane.width / 2, 3) for lane in plan.lanes for side in (1, -1)}
    for edge in sorted(edges):
        near = [lane for lane in plan.lanes if _borders(lane, edge)]
        if len(near) < 2 or _kerb_of_median(plan, edge):
            continue
        if any(lane.way == 0 for lane in near):
            if dice.chance(0.4):
                bay = sorted((edge, edge + math.copysign(1.8, edge)))
                lines += [(s, s + 0.12, bay[0], bay[1]) for s in every(0, 90, 5.5)]
            continue
        solid = near[0].way != near[1].way and dice.chance(0.4)
        starts = [float(KNOTS[0])] if solid else every(float(KNOTS[0]), FAR_M, dash + gap)
        length = FAR_M - float(KNOTS[0]) if solid else dash
        for a, b in _outside_crossings(plan, [(s, s + length) for s in starts]):
            lines.append((a, b, edge - LINE_M / 2, edge + LINE_M / 2))
    return lines


def _borders(lane: Lane, edge: float) -> bool:
    return abs(abs(lane.d - edge) - lane.width / 2) < 1e-2


def _kerb_of_median(plan: Plan, edge: float) -> bool:
    return plan.median is not None and min(abs(edge - m) for m in plan.median) < 0.05


def _outside_crossings(plan: Plan, pieces: list[tuple[float, float]]) -> list[tuple[float, float]]:
    for a, b in plan.road.side_streets:
        cut = [part for p, q in pieces for part in ((p, min(q, a - 3)), (max(p, b + 3), q))]
        pieces = [(p, q) for p, q in cut if q - p > 0.2]
    return pieces


def _crossings(plan: Plan, dice: Dice) -> list[Rectangle]:
    """A stop line before every side street and, mostly, crosswalks before and behind it."""
    lines: list[Rectangle] = []
    own = [lane for lane in plan.lanes if lane.way == 1]
    low, high = min(p.d - p.width / 2 for p in own), max(p.d + p.width / 2 for p in own)
    bars = [
        d
        for d in every(plan.right_edge + 0.3, plan.left_edge - 0.6, 1.0)
        if not plan.in_median(d, 0.6)
    ]
    for a, b in plan.road.side_streets:
        lines.append((a - 6.0, a - 5.55, low + 0.15, high - 0.15))
        if dice.chance(0.6):
            lines += [(s, s + 3.2, d, d + 0.5) for s in (a - 4.6, b + 1.2) for d in bars]
    return lines
