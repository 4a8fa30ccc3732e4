"""Motorcycles, scooters and bicycles."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from tag_perception.data.street.cars import HEAD, PAINT, SECOND, TAIL, TRIM, plate
from tag_perception.data.street.shapes import TYRE, Shape, Solid

TUBE = 0.022
"""Radius of a bicycle's tubes, metres."""


def build_motorcycle(scooter: bool) -> Shape:
    """A motorcycle, or a scooter with a leg shield and a top box."""
    s = Solid()
    reach, radius, width = (0.68, 0.24, 0.14) if scooter else (0.73, 0.31, 0.16)
    s.wheels((-reach, reach), width / 2, radius, width / 2, TRIM)
    s.box((-0.5, -0.16, 0.3), (0.35, 0.16, 0.62), PAINT if scooter else TYRE)
    if scooter:
        s.box((-0.85, -0.2, 0.45), (-0.05, 0.2, 0.75), PAINT)
        s.box((0.36, -0.24, 0.3), (0.5, 0.24, 0.95), PAINT)
        s.box((-0.9, -0.18, 0.78), (-0.55, 0.18, 1.1), SECOND)
    else:
        s.ball((0.15, 0, 0.78), (0.34, 0.19, 0.17), PAINT)
        s.box((-0.95, -0.12, 0.68), (-0.6, 0.12, 0.86), PAINT)
        s.prism((-0.75, 0.2, 0.33), (-0.1, 0.2, 0.3), (0.07, 0.06), TRIM)
    s.box((-0.75, -0.15, 0.74), (-0.05, 0.15, 0.83), TYRE)
    for side in (0.1, -0.1):
        s.prism((reach, side, radius), (0.42, side, 0.98), (0.035, 0.035), TRIM)
    s.prism((0.38, -0.36, 1.04), (0.38, 0.36, 1.04), (0.025, 0.025), TYRE)
    s.box((0.4, -0.17, 0.8), (0.56, 0.17, 1.12), PAINT)
    s.panel('front', 0.575, (-0.1, 0.1), (0.82, 0.98), HEAD)
    s.box((-1.0, -0.1, 0.66), (-0.9, 0.1, 0.78), TAIL, faces='back left right')
    plate(s, 'back', -1.0, 0.5)
    return s.shape().grounded(centred=True)


def build_bicycle(step_through: bool, basket: bool) -> Shape:
    """A diamond frame or a step-through frame, with or without a basket."""
    s = Solid()
    for x in (-0.53, 0.53):
        s.panel('left', 0.0, (x - 0.34, x + 0.34), (0.0, 0.68), TRIM, 'wheel_bicycle')
        angle = np.linspace(0, 2 * np.pi, 13)
        rim = np.stack((x + 0.33 * np.cos(angle), 0 * angle, 0.34 + 0.33 * np.sin(angle)), 1)
        for a, b in pairwise(rim):
            s.prism(a, b, (0.02, 0.02), TYRE, sides=4)
    for a, b in _tubes(step_through):
        s.prism(a, b, (TUBE, TUBE), PAINT, sides=4)
    s.prism((0.34, -0.29, 1.02), (0.34, 0.29, 1.02), (0.02, 0.02), TYRE, sides=4)
    s.box((-0.36, -0.08, 0.88), (-0.1, 0.08, 0.95), TYRE)
    s.box((-0.14, -0.16, 0.27), (0.0, 0.16, 0.32), TYRE)
    s.box((-0.8, -0.05, 0.68), (-0.3, 0.05, 0.71), TYRE)
    s.box((-0.86, -0.04, 0.58), (-0.82, 0.04, 0.66), TAIL)
    s.box((0.5, -0.05, 0.78), (0.55, 0.05, 0.87), HEAD)
    if basket:
        s.box((0.42, -0.2, 0.82), (0.76, 0.2, 1.05), SECOND, 'cloth')
    return s.shape().grounded(centred=True)


def _tubes(step_through: bool) -> list[tuple[tuple[float, float, float], ...]]:
    head, seat, crank, low_head = (
        (0.4, 0.0, 0.86),
        (-0.2, 0.0, 0.86),
        (-0.1, 0.0, 0.3),
        (0.44, 0.0, 0.62),
    )
    rear, front, bar = (-0.53, 0.0, 0.34), (0.53, 0.0, 0.34), (0.36, 0.0, 1.02)
    top = (low_head, (-0.13, 0.0, 0.45)) if step_through else (head, (-0.19, 0.0, 0.8))
    stays = [(rear, crank), (rear, (-0.18, 0.0, 0.75))]
    return [(crank, seat), (crank, low_head), top, *stays, (front, head), (head, bar)]
