"""Colours of things: a palette of eight R, G, B, glow entries per placement."""

from __future__ import annotations

from collections.abc import Sequence

from tag_perception.data.street.dice import Dice

Color = tuple[float, float, float]
Palette = tuple[float, ...]
"""8 × 4 numbers: R, G, B and glow of every slot."""

_PAINTS: dict[Color, float] = {
    (0.03, 0.03, 0.035): 14, (0.05, 0.05, 0.06): 10, (0.16, 0.17, 0.18): 12,
    (0.36, 0.37, 0.39): 12, (0.55, 0.56, 0.58): 12, (0.8, 0.8, 0.8): 10, (0.86, 0.86, 0.84): 8,
    (0.03, 0.06, 0.2): 7,
    (0.05, 0.14, 0.36): 5, (0.42, 0.03, 0.03): 4, (0.55, 0.06, 0.05): 4, (0.06, 0.2, 0.1): 2,
    (0.4, 0.34, 0.24): 3, (0.7, 0.55, 0.1): 1, (0.25, 0.12, 0.07): 2,
}  # fmt: skip
_LIVERY: tuple[Color, ...] = (
    (0.75, 0.75, 0.73), (0.6, 0.06, 0.06), (0.72, 0.58, 0.08), (0.05, 0.2, 0.5),
    (0.06, 0.36, 0.16), (0.8, 0.8, 0.8), (0.35, 0.37, 0.4), (0.75, 0.35, 0.06),
)  # fmt: skip
_CLOTHES: tuple[Color, ...] = (
    (0.04, 0.04, 0.05), (0.08, 0.1, 0.18), (0.2, 0.2, 0.22), (0.35, 0.3, 0.24), (0.5, 0.5, 0.5),
    (0.7, 0.68, 0.64), (0.5, 0.06, 0.07), (0.08, 0.18, 0.42), (0.1, 0.28, 0.16), (0.6, 0.42, 0.1),
    (0.4, 0.1, 0.3), (0.65, 0.3, 0.3),
)  # fmt: skip
_TROUSERS: tuple[Color, ...] = (
    (0.04, 0.04, 0.05), (0.07, 0.09, 0.16), (0.13, 0.16, 0.25), (0.25, 0.22, 0.17),
    (0.18, 0.18, 0.19),
)  # fmt: skip
_SKIN: tuple[Color, ...] = (
    (0.75, 0.53, 0.42), (0.66, 0.45, 0.34), (0.48, 0.3, 0.2), (0.28, 0.17, 0.12),
)  # fmt: skip
_HAIR: tuple[Color, ...] = (
    (0.03, 0.025, 0.02), (0.12, 0.07, 0.04), (0.32, 0.22, 0.11), (0.4, 0.4, 0.4), (0.3, 0.1, 0.05),
)  # fmt: skip
WALLS: tuple[Color, ...] = (
    (0.66, 0.6, 0.48), (0.72, 0.68, 0.6), (0.6, 0.52, 0.4), (0.55, 0.54, 0.52), (0.68, 0.58, 0.34),
    (0.5, 0.36, 0.28), (0.62, 0.45, 0.36), (0.44, 0.44, 0.46), (0.74, 0.74, 0.72),
    (0.48, 0.5, 0.42), (0.4, 0.24, 0.2), (0.56, 0.6, 0.62),
)  # fmt: skip
BRICKS: tuple[Color, ...] = (
    (0.42, 0.22, 0.17),
    (0.5, 0.3, 0.22),
    (0.34, 0.22, 0.18),
    (0.5, 0.42, 0.34),
)
ROOFS: tuple[Color, ...] = (
    (0.36, 0.16, 0.12), (0.28, 0.14, 0.11), (0.2, 0.2, 0.22), (0.16, 0.16, 0.18),
    (0.3, 0.25, 0.22),
)  # fmt: skip
METAL: tuple[Color, ...] = (
    (0.2, 0.21, 0.22), (0.34, 0.35, 0.36), (0.12, 0.14, 0.13), (0.45, 0.46, 0.46),
    (0.1, 0.18, 0.14),
)  # fmt: skip
WOOD: tuple[Color, ...] = (
    (0.3, 0.22, 0.15),
    (0.22, 0.16, 0.11),
    (0.4, 0.33, 0.25),
    (0.55, 0.53, 0.5),
)

_WHITE = (1.0, 1.0, 1.0, 0.0)


def vary(dice: Dice, color: Color, spread: float) -> Color:
    """The colour with every channel changed by up to the share `spread`."""
    r, g, b = (channel * dice.uniform(1 - spread, 1 + spread) for channel in color)
    return r, g, b


def pick(dice: Dice, colors: Sequence[Color], spread: float = 0.12) -> Color:
    """One of the colours, a little changed."""
    return vary(dice, dice.pick(colors), spread)


def palette(*colors: Sequence[float]) -> Palette:
    """From up to eight colours, R, G, B or R, G, B, glow; white where none is given."""
    flat: tuple[float, ...] = ()
    for color in colors:
        flat += (*color, 0.0) if len(color) == 3 else tuple(color)
    return flat + _WHITE * (8 - len(colors))


def vehicle(dice: Dice, label: str, lamps: float) -> Palette:
    """Paint, glass, rubber, head and tail lamps (burning at `lamps`), trim, second paint."""
    if label in ('car', 'motorcycle', 'bicycle'):
        paint = vary(dice, dice.weighted(_PAINTS), 0.1)
    else:
        paint = pick(dice, _LIVERY)
    head = (0.82, 0.84, 0.86, 2.2 * lamps)
    tail = (0.55, 0.02, 0.03, 1.3 * lamps)
    trim, glass, rubber = (0.5, 0.51, 0.53), (1.0, 1.0, 1.0), (0.06, 0.06, 0.062)
    return palette(paint, glass, rubber, head, tail, trim, pick(dice, _LIVERY))


def person(dice: Dice) -> Palette:
    """Skin, top, legs, shoes, hair, extra (bag or helmet)."""
    shoes = (0.06, 0.05, 0.05)
    chosen = [pick(dice, colors) for colors in (_SKIN, _CLOTHES, _TROUSERS, _HAIR, _CLOTHES)]
    return palette(*chosen[:3], shoes, *chosen[3:])


def foliage(dice: Dice, season: float) -> Palette:
    """Leaves, bark, leaves in front; `season` 0 summer … 1 autumn."""
    tone, turn, dark = (
        dice.uniform(0.75, 1.25),
        season * dice.uniform(0.3, 1),
        dice.uniform(0.7, 1.3),
    )
    mixed = [
        tone * g + turn * (a - tone * g)
        for g, a in zip((0.24, 0.34, 0.13), (0.5, 0.3, 0.08), strict=True)
    ]
    leaves = vary(dice, (mixed[0], mixed[1], mixed[2]), 0.12)
    bark = (0.22 * dark, 0.17 * dark, 0.13 * dark)
    return palette(leaves, bark, tuple(1.12 * channel for channel in leaves))
