"""Colours of things: one (8, 4) palette of R, G, B and glow per placement."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Color = tuple[float, float, float]

_PAINTS = np.array([
    (0.03, 0.03, 0.035), (0.05, 0.05, 0.06), (0.16, 0.17, 0.18), (0.36, 0.37, 0.39), (0.55, 0.56, 0.58),
    (0.8, 0.8, 0.8), (0.86, 0.86, 0.84), (0.03, 0.06, 0.2), (0.05, 0.14, 0.36), (0.42, 0.03, 0.03),
    (0.55, 0.06, 0.05), (0.06, 0.2, 0.1), (0.4, 0.34, 0.24), (0.7, 0.55, 0.1), (0.25, 0.12, 0.07),
])  # fmt: skip
_PAINT_SHARE = np.array([14, 10, 12, 12, 12, 10, 8, 7, 5, 4, 4, 2, 3, 1, 2], float)
_LIVERY = np.array([
    (0.75, 0.75, 0.73), (0.6, 0.06, 0.06), (0.72, 0.58, 0.08), (0.05, 0.2, 0.5), (0.06, 0.36, 0.16), (0.8, 0.8, 0.8),
    (0.35, 0.37, 0.4), (0.75, 0.35, 0.06),
])  # fmt: skip
_CLOTHES = np.array([
    (0.04, 0.04, 0.05), (0.08, 0.1, 0.18), (0.2, 0.2, 0.22), (0.35, 0.3, 0.24), (0.5, 0.5, 0.5), (0.7, 0.68, 0.64),
    (0.5, 0.06, 0.07), (0.08, 0.18, 0.42), (0.1, 0.28, 0.16), (0.6, 0.42, 0.1), (0.4, 0.1, 0.3), (0.65, 0.3, 0.3),
])  # fmt: skip
_TROUSERS = np.array(
    [
        (0.04, 0.04, 0.05),
        (0.07, 0.09, 0.16),
        (0.13, 0.16, 0.25),
        (0.25, 0.22, 0.17),
        (0.18, 0.18, 0.19),
    ]
)
_SKIN = np.array([(0.75, 0.53, 0.42), (0.66, 0.45, 0.34), (0.48, 0.3, 0.2), (0.28, 0.17, 0.12)])
_HAIR = np.array(
    [
        (0.03, 0.025, 0.02),
        (0.12, 0.07, 0.04),
        (0.32, 0.22, 0.11),
        (0.4, 0.4, 0.4),
        (0.3, 0.1, 0.05),
    ]
)
WALLS = np.array([
    (0.66, 0.6, 0.48), (0.72, 0.68, 0.6), (0.6, 0.52, 0.4), (0.55, 0.54, 0.52), (0.68, 0.58, 0.34), (0.5, 0.36, 0.28),
    (0.62, 0.45, 0.36), (0.44, 0.44, 0.46), (0.74, 0.74, 0.72), (0.48, 0.5, 0.42), (0.4, 0.24, 0.2), (0.56, 0.6, 0.62),
])  # fmt: skip
BRICKS = np.array([(0.42, 0.22, 0.17), (0.5, 0.3, 0.22), (0.34, 0.22, 0.18), (0.5, 0.42, 0.34)])
ROOFS = np.array(
    [
        (0.36, 0.16, 0.12),
        (0.28, 0.14, 0.11),
        (0.2, 0.2, 0.22),
        (0.16, 0.16, 0.18),
        (0.3, 0.25, 0.22),
    ]
)
METAL = np.array(
    [
        (0.2, 0.21, 0.22),
        (0.34, 0.35, 0.36),
        (0.12, 0.14, 0.13),
        (0.45, 0.46, 0.46),
        (0.1, 0.18, 0.14),
    ]
)
WOOD = np.array([(0.3, 0.22, 0.15), (0.22, 0.16, 0.11), (0.4, 0.33, 0.25), (0.55, 0.53, 0.5)])


def pick(rng: np.random.Generator, colors: np.ndarray, spread: float = 0.12) -> Color:
    """One of the colours, a little changed."""
    color = colors[int(rng.integers(len(colors)))] * (1 + spread * rng.uniform(-1, 1, 3))
    return float(color[0]), float(color[1]), float(color[2])


def palette(*colors: Sequence[float]) -> np.ndarray:
    """(8, 4) from up to eight colours, RGB or RGB and glow; white where none is given."""
    table = np.ones((8, 4))
    table[:, 3] = 0
    for slot, color in enumerate(colors):
        table[slot, : len(color)] = color
    return table


def vehicle(rng: np.random.Generator, label: str, lamps: float) -> np.ndarray:
    """Paint, glass, rubber, head and tail lamps (lit when `lamps` > 0), trim, second paint, white."""
    if label in ('car', 'motorcycle', 'bicycle'):
        share = _PAINT_SHARE / _PAINT_SHARE.sum()
        chosen = _PAINTS[rng.choice(len(_PAINTS), p=share)]
        paint = tuple(chosen * (1 + 0.1 * rng.uniform(-1, 1, 3)))
    else:
        paint = pick(rng, _LIVERY)
    head = (0.82, 0.84, 0.86, 2.2 * lamps)
    tail = (0.55, 0.02, 0.03, 1.3 * lamps)
    trim = (0.5, 0.51, 0.53)
    return palette(paint, (1, 1, 1), (0.3, 0.3, 0.31), head, tail, trim, pick(rng, _LIVERY))


def person(rng: np.random.Generator) -> np.ndarray:
    """Skin, top, legs, shoes, hair, extra (bag or helmet)."""
    return palette(
        pick(rng, _SKIN),
        pick(rng, _CLOTHES),
        pick(rng, _TROUSERS),
        (0.06, 0.05, 0.05),
        pick(rng, _HAIR),
        pick(rng, _CLOTHES),
    )


def foliage(rng: np.random.Generator, season: float) -> np.ndarray:
    """Leaves, bark, leaves in front; `season` 0 summer … 1 autumn."""
    green = np.array((0.24, 0.34, 0.13)) * rng.uniform(0.75, 1.25)
    leaves = green + season * rng.uniform(0.3, 1) * (np.array((0.5, 0.3, 0.08)) - green)
    leaves = leaves * (1 + 0.12 * rng.uniform(-1, 1, 3))
    bark = np.array((0.22, 0.17, 0.13)) * rng.uniform(0.7, 1.3)
    return palette(leaves, bark, leaves * 1.12)
