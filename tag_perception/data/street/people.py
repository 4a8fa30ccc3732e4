"""People as articulated bodies: walking, standing, on a saddle. Feet on z = 0, facing +x."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tag_perception.data.street.shapes import Shape, Solid

SKIN, TOP, LEGS, SHOES, HAIR, EXTRA = 0, 1, 2, 3, 4, 5
"""Palette slots of people."""

WALK_PHASES = 8
"""Poses in one walking cycle (two steps)."""
WALK_CYCLE_M = 1.5
"""Ground covered in one walking cycle."""


@dataclass(frozen=True)
class Build:
    """What a body wears and carries."""

    name: str
    shoulders: float = 0.21
    coat: float = 0.0
    """How far a coat or skirt hangs below the hips, metres."""
    bag: bool = False
    helmet: bool = False


BUILDS = (
    Build('plain'),
    Build('broad', shoulders=0.24, bag=True),
    Build('coat', shoulders=0.2, coat=0.45),
)

HIP_M, SHOULDER_M, TOP_M = 0.92, 1.44, 1.76


def _limb(
    s: Solid, points: list[np.ndarray], radii: tuple[float, ...], slots: tuple[int, ...]
) -> None:
    for i, slot in enumerate(slots):
        s.prism(points[i], points[i + 1], (radii[i], radii[i + 1]), slot, 'cloth', sides=6)


def _leg(hip: np.ndarray, thigh: float, knee: float) -> list[np.ndarray]:
    """Hip, knee and ankle for a thigh angle forward of straight down and a knee bend."""
    bend = hip + 0.43 * np.array((math.sin(thigh), 0.0, -math.cos(thigh)))
    shin = thigh - knee
    return [hip, bend, bend + 0.42 * np.array((math.sin(shin), 0.0, -math.cos(shin)))]


def _arm(shoulder: np.ndarray, swing: float, elbow: float, spread: float) -> list[np.ndarray]:
    side = math.copysign(spread, shoulder[1])
    bend = shoulder + 0.3 * np.array((math.sin(swing), side, -math.cos(swing)))
    fore = swing + elbow
    return [shoulder, bend, bend + 0.27 * np.array((math.sin(fore), side * 0.3, -math.cos(fore)))]


def _upper_body(
    s: Solid, build: Build, hip: np.ndarray, lean: float, arms: tuple[tuple[float, float], ...]
) -> None:
    up = np.array((math.sin(lean), 0.0, math.cos(lean)))
    waist, chest, neck = hip + 0.14 * up, hip + 0.46 * up, hip + 0.6 * up
    s.prism(hip - 0.06 * up, waist, (0.17, 0.15), LEGS, 'cloth', 8, 0.72)
    s.prism(waist, chest, (0.155, build.shoulders), TOP, 'cloth', 8, 0.66)
    s.prism(chest, neck, (build.shoulders, 0.07), TOP, 'cloth', 8, 0.66)
    if build.coat:
        s.prism(
            waist - (build.coat + 0.14) * np.array((0, 0, 1.0)),
            waist,
            (0.25, 0.17),
            TOP,
            'cloth',
            8,
            0.8,
        )
    if build.bag:
        low = chest - np.array((0.34, 0.15, 0.28))
        s.box(low, low + np.array((0.22, 0.3, 0.42)), EXTRA, 'cloth')
    head = neck + 0.15 * up + np.array((0.02, 0, 0.03))
    s.prism(neck - 0.02 * up, head, (0.06, 0.055), SKIN)
    if build.helmet:
        s.ball(head, (0.135, 0.12, 0.15), SKIN, EXTRA, -0.1)
    else:
        s.ball(head, (0.1, 0.085, 0.13), SKIN, HAIR)
    for side, (swing, elbow) in zip((1, -1), arms, strict=True):
        shoulder = chest + 0.1 * up + np.array((0, side * (build.shoulders - 0.01), 0.0))
        _limb(s, _arm(shoulder, swing, elbow, 0.18), (0.062, 0.05, 0.042), (TOP, TOP))
        hand = _arm(shoulder, swing, elbow, 0.18)[-1]
        s.ball(hand, (0.05, 0.04, 0.06), SKIN, sides=5, rings=2)


def _stand(
    build: Build, legs: tuple[tuple[float, float], ...], arms: tuple[tuple[float, float], ...]
) -> Shape:
    s, hip = Solid(), np.array((0.0, 0.0, HIP_M))
    for side, (thigh, knee) in zip((1, -1), legs, strict=True):
        points = _leg(hip + np.array((0, side * 0.09, -0.02)), thigh, knee)
        _limb(s, points, (0.095, 0.065, 0.045), (LEGS, LEGS))
        toe = points[-1] + np.array((0.14, 0, -0.04))
        s.prism(points[-1] - np.array((0.06, 0, 0.04)), toe, (0.055, 0.04), SHOES)
    _upper_body(s, build, hip, 0.04, arms)
    return s.shape().grounded()


def _walk(build: Build, phase: int) -> Shape:
    t = 2 * math.pi * phase / WALK_PHASES
    left, right = 0.5 * math.sin(t), -0.5 * math.sin(t)
    knees = 0.25 + 0.35 * max(0.0, math.cos(t)), 0.25 + 0.35 * max(0.0, -math.cos(t))
    arms = ((right * 0.8, 0.35), (left * 0.8, 0.35))
    return _stand(build, ((left, knees[0]), (right, knees[1])), arms)


def _ride(build: Build, lean: float, thigh: float, reach: float) -> Shape:
    """Seated with the saddle at the origin."""
    s, hip = Solid(), np.array((0.0, 0.0, 0.08))
    for side, lift in ((1, 0.35), (-1, -0.1)):
        points = _leg(hip + np.array((0, side * 0.1, 0.0)), thigh + lift, thigh + lift + 0.25)
        _limb(s, points, (0.1, 0.07, 0.048), (LEGS, LEGS))
        s.prism(
            points[-1] - np.array((0.06, 0, 0.03)),
            points[-1] + np.array((0.14, 0, -0.03)),
            (0.055, 0.04),
            SHOES,
        )
    _upper_body(s, build, hip, lean, ((reach, 0.3), (reach, 0.3)))
    return s.shape()


def poses() -> dict[str, Shape]:
    """All bodies by name: walk_<build>_<phase>, stand_<build>, cyclist_<n>, biker_<n>."""
    shapes: dict[str, Shape] = {}
    for build in BUILDS:
        for phase in range(WALK_PHASES):
            shapes[f'walk_{build.name}_{phase}'] = _walk(build, phase)
        arms = ((0.1, 0.1), (0.3, 1.6)) if build.bag else ((0.05, 0.1), (0.05, 0.2))
        shapes[f'stand_{build.name}'] = _stand(build, ((0.05, 0.05), (-0.05, 0.05)), arms)
    for index, (lean, helmet) in enumerate(((0.25, False), (0.55, True), (0.12, False))):
        build = Build('cyclist', bag=index == 1, helmet=helmet)
        shapes[f'cyclist_{index}'] = _ride(build, lean, 0.75, 1.0 + 0.3 * lean)
    for index, lean in enumerate((0.2, 0.45)):
        shapes[f'biker_{index}'] = _ride(Build('biker', 0.23, helmet=True), lean, 1.0, 1.05)
    return shapes
