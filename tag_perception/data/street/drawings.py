"""How surfaces look: one drawing function per kind of matter.

A drawing is an (n, n, 4) float array in 0…1, first row on top, that tiles where its surface does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import cv2
import numpy as np

Draw = Callable[[int, np.random.Generator], np.ndarray]


def noise(n: int, rng: np.random.Generator, cells: int, octaves: int = 4) -> np.ndarray:
    """(n, n) tiling value noise in about 0…1, `cells` bumps along a side in the first octave."""
    total, weight = np.zeros((n, n), np.float32), 0.0
    for octave in range(octaves):
        count = min(cells * 2**octave, n)
        grid = rng.random((count, count)).astype(np.float32)
        grid = np.pad(grid, 2, mode='wrap')
        pad = n * 2 // count
        up = cv2.resize(grid, (n + 2 * pad, n + 2 * pad), interpolation=cv2.INTER_CUBIC)
        total += up[pad : pad + n, pad : pad + n] * 0.5**octave
        weight += 0.5**octave
    return total / weight


def gray(value: np.ndarray, tint: float | np.ndarray = 1.0) -> np.ndarray:
    """(n, n, 4) from brightness and the tint mask."""
    image = np.repeat(value[..., None], 4, -1).astype(np.float32)
    image[..., 3] = tint
    return image


def speckle(low: float, high: float, cells: int, grain: float) -> Draw:
    """Rough uniform matter: asphalt, plaster, earth, cloth."""

    def draw(n: int, rng: np.random.Generator) -> np.ndarray:
        value = low + (high - low) * noise(n, rng, cells)
        return gray(value + grain * rng.standard_normal((n, n)))

    return draw


def asphalt(n: int, rng: np.random.Generator) -> np.ndarray:
    """Gravel grain, patches and a few cracks."""
    value = 0.72 + 0.3 * noise(n, rng, 3) + 0.07 * rng.standard_normal((n, n))
    for _ in range(3):
        points = np.cumsum(rng.normal(0, n / 14, (12, 2)), 0) + rng.random(2) * n
        cv2.polylines(value, [points.astype(np.int32)], False, 0.62, 1)
    return gray(value)


def blocks(rows: int, columns: int, joint: float, spread: float, bond: bool) -> Draw:
    """Bricks, slabs, cobbles: blocks of slightly different brightness with joints."""

    def draw(n: int, rng: np.random.Generator) -> np.ndarray:
        tone = 0.85 + spread * (rng.random((rows, columns)) - 0.5)
        y, x = np.mgrid[0:n, 0:n] / n
        row = (y * rows).astype(int)
        shifted = x * columns + (row % 2) * 0.5 * bond
        value = tone[row, shifted.astype(int) % columns]
        edge_x, edge_y = np.abs(shifted % 1 - 0.5) * 2, np.abs((y * rows) % 1 - 0.5) * 2
        is_joint = (edge_x > 1 - joint * columns / rows) | (edge_y > 1 - joint)
        value = np.where(is_joint, 0.62, value) + 0.12 * (noise(n, rng, 8) - 0.5)
        return gray(value)

    return draw


def leaves(hue: float, holes: float) -> Draw:
    """A dense surface of leaves: hedges, lawns, ivy."""

    def draw(n: int, rng: np.random.Generator) -> np.ndarray:
        fine, coarse = noise(n, rng, 32, 3), noise(n, rng, 6, 3)
        value = 0.35 + 0.75 * fine + 0.5 * (coarse - 0.5) - holes * (fine < 0.4)
        image = gray(value.clip(0.08, 1.3))
        image[..., 0] *= 0.9 + hue * coarse
        image[..., 2] *= 0.75
        return image / 1.3

    return draw


def crown(shape: str, density: float) -> Draw:
    """A whole tree crown as a sprite of several hundred leaf clumps lit from above."""

    def draw(n: int, rng: np.random.Generator) -> np.ndarray:
        image = np.zeros((n, n, 4), np.float32)
        count = int(420 * density)
        for index in range(count):
            x, y = _inside(shape, rng)
            depth = index / count  # later clumps are nearer and brighter
            light = 0.28 + 0.5 * depth + 0.35 * (0.5 - y) + 0.12 * rng.standard_normal()
            radius = n * rng.uniform(0.02, 0.05)
            color = (light * rng.uniform(0.85, 1.1), light, light * rng.uniform(0.55, 0.8), 1.0)
            for _ in range(5):
                spot = (np.array((x, y)) * n + rng.normal(0, radius * 0.8, 2)).astype(int)
                axes = (max(1, int(radius * rng.uniform(0.3, 0.8))), max(1, int(radius * 0.45)))
                angle = rng.uniform(0, 180)
                cv2.ellipse(image, (int(spot[0]), int(spot[1])), axes, angle, 0, 360, color, -1)
        image[..., :3] *= (0.8 + 0.4 * noise(n, rng, 40, 2))[..., None]
        image[:, :2, 3] = image[:, -2:, 3] = image[:2, :, 3] = image[-2:, :, 3] = 0
        return image

    return draw


def _inside(shape: str, rng: np.random.Generator) -> tuple[float, float]:
    if shape == 'cone':
        y = 0.06 + 0.88 * math.sqrt(rng.random())
        return 0.5 + 0.42 * y * rng.uniform(-1, 1), y
    radius, angle = math.sqrt(rng.random()), rng.uniform(0, 2 * math.pi)
    width, height = {'round': (0.4, 0.4), 'tall': (0.3, 0.43), 'flat': (0.42, 0.33)}[shape]
    wobble = 1 + 0.12 * math.sin(3 * angle + 1) + 0.08 * math.sin(5 * angle)
    return (
        0.5 + width * radius * wobble * math.cos(angle),
        0.5 + height * radius * wobble * math.sin(angle),
    )


def facade(window: tuple[float, float], style: str) -> Draw:
    """One storey-high cell of a house front: wall, window, frame, sill. Panes are not tinted."""

    def draw(n: int, rng: np.random.Generator) -> np.ndarray:
        image = gray(0.84 + 0.12 * noise(n, rng, 4) + 0.02 * rng.standard_normal((n, n)))
        width, height = int(window[0] * n), int(window[1] * n)
        x0, y0 = (n - width) // 2, int(n * (0.92 - window[1]) * 0.72)
        frame = max(2, n // 42)
        if style == 'brick':
            image = blocks(40, 12, 0.12, 0.35, True)(n, rng)
        if style in ('old', 'brick'):
            _fill(
                image, x0 - 3 * frame, y0 - 3 * frame, width + 6 * frame, height + 5 * frame, 1.0
            )
        _fill(image, x0 - frame, y0 - frame, width + 2 * frame, height + 2 * frame, 0.86, 0.1)
        _glass(image, x0, y0, width, height, rng)
        image[y0 : y0 + height, x0 + width // 2 - frame // 2 : x0 + width // 2 + frame // 2] = 0.8
        if style in ('old', 'brick'):
            y = y0 + height // 3
            image[y : y + frame, x0 : x0 + width] = 0.8
        if style == 'office':
            image[int(0.9 * n) :, :, :3] *= 0.75
        if style == 'balcony':
            _fill(image, int(0.06 * n), int(0.7 * n), int(0.88 * n), int(0.2 * n), 0.6, 0.4)
        _fill(image, x0 - 3 * frame, y0 + height + frame, width + 6 * frame, frame, 0.68, 0.5)
        return image

    return draw


def shop(awning: bool) -> Draw:
    """A ground floor: large panes over a plinth, a fascia above."""

    def draw(n: int, rng: np.random.Generator) -> np.ndarray:
        image = gray(0.7 + 0.1 * noise(n, rng, 4))
        _glass(image, int(0.06 * n), int(0.3 * n), int(0.56 * n), int(0.58 * n), rng)
        _glass(image, int(0.68 * n), int(0.3 * n), int(0.26 * n), int(0.68 * n), rng)
        for _ in range(14):  # goods and lights behind the pane
            x, y = int(rng.uniform(0.08, 0.56) * n), int(rng.uniform(0.45, 0.8) * n)
            color = (*rng.uniform(0.15, 0.8, 3), 0.0)
            cv2.rectangle(image, (x, y), (x + n // 20, y + n // 14), color, -1)
        color = (*rng.uniform(0.1, 0.9, 3), 0.0)
        cv2.rectangle(image, (0, int(0.08 * n)), (n, int(0.25 * n)), color, -1)
        for x in range(int(0.1 * n), int(0.9 * n), n // 9):
            cv2.rectangle(image, (x, n // 8), (x + n // 14, n // 5), (0.95, 0.95, 0.9, 0.0), -1)
        if awning:
            for x in range(0, n, n // 8):
                cv2.rectangle(
                    image, (x, int(0.25 * n)), (x + n // 16, int(0.36 * n)), (0.9, 0.9, 0.9, 0), -1
                )
        return image

    return draw


def _fill(
    image: np.ndarray, x: int, y: int, width: int, height: int, value: float, tint: float = 1.0
) -> None:
    image[max(y, 0) : y + height, max(x, 0) : x + width] = (value, value, value, tint)


def _glass(
    image: np.ndarray, x: int, y: int, width: int, height: int, rng: np.random.Generator
) -> None:
    """A pane: dark, a bright slanted reflection of the sky in its upper part."""
    v, u = np.mgrid[0:height, 0:width]
    slant = v / max(height, 1) + 0.5 * u / max(width, 1)
    value = 0.14 + 0.30 * np.clip(0.9 - slant, 0, 1) + 0.03 * rng.standard_normal(slant.shape)
    pane = np.stack((value * 0.88, value * 0.98, value * 1.1, np.zeros_like(value)), -1)
    image[y : y + height, x : x + width] = pane


def panes(edges: tuple[float, ...], top: float, bottom: float, pillar: float) -> Draw:
    """Side windows of a vehicle: panes between the pillars at `edges`; the rest is body colour."""

    def draw(n: int, rng: np.random.Generator) -> np.ndarray:
        image = gray(0.95 + 0.02 * rng.standard_normal((n, n)))
        for left, right in pairwise(edges):
            x0, x1 = int((left + pillar) * n), int((right - pillar) * n)
            _glass(image, x0, int(top * n), x1 - x0, int((bottom - top) * n), rng)
        return image

    return draw


def stripes(vertical: int, horizontal: int, width: float) -> Draw:
    """Bars of a fence or a corrugated sheet, cut out between the bars."""

    def draw(n: int, rng: np.random.Generator) -> np.ndarray:
        y, x = np.mgrid[0:n, 0:n] / n
        bars = ((x * vertical) % 1 < width) if vertical else np.zeros((n, n), bool)
        if horizontal:
            rail = np.abs((y * horizontal) % 1 - 0.5) < 0.5 * width * horizontal / max(vertical, 1)
            bars = bars | rail
        value = 0.8 + 0.15 * noise(n, rng, 8) - 0.25 * (((x * max(vertical, 1)) % 1) > 0.6 * width)
        return gray(value, bars.astype(np.float32))

    return draw


def sheet(vertical: int) -> Draw:
    """Corrugated metal or boards: shaded ribs."""

    def draw(n: int, rng: np.random.Generator) -> np.ndarray:
        x = np.arange(n) / n * vertical
        value = 0.78 + 0.14 * np.sin(2 * np.pi * x)[None, :] + 0.1 * (noise(n, rng, 6) - 0.5)
        return gray(np.broadcast_to(value, (n, n)))

    return draw


def wheel(spokes: int, tyre: float, filled: bool) -> Draw:
    """A wheel seen from the side, cut out to a disc."""

    def draw(n: int, rng: np.random.Generator) -> np.ndarray:
        y, x = (np.mgrid[0:n, 0:n] + 0.5) / n * 2 - 1
        radius, angle = np.hypot(x, y), np.arctan2(y, x)
        rim = radius < 1 - tyre
        spoke = (np.cos(angle * spokes) > (0.1 if filled else 0.75)) | (radius < 0.16)
        value = np.where(rim, np.where(spoke, 0.62, 0.16), 0.085)
        alpha = radius < 0.985 if filled else (radius < 0.985) & (~rim | spoke)
        return gray(value + 0.02 * rng.standard_normal((n, n)), alpha.astype(np.float32))

    return draw


def disc(n: int, rng: np.random.Generator) -> np.ndarray:
    """A plain round plate."""
    y, x = (np.mgrid[0:n, 0:n] + 0.5) / n * 2 - 1
    return gray(0.9 + 0.05 * noise(n, rng, 8), (np.hypot(x, y) < 0.97).astype(np.float32))


def sign(
    outline: str, face: tuple[float, float, float], edge: tuple[float, float, float], mark: str
) -> Draw:
    """A traffic sign, cut out to its outline."""

    def draw(n: int, rng: np.random.Generator) -> np.ndarray:
        image = np.zeros((n, n, 4), np.float32)
        for color, scale in ((edge, 0.97), (face, 0.74)):
            cv2.fillPoly(image, [_outline(outline, n, scale)], (*color, 1.0))
        ink = (0.04, 0.04, 0.05, 1.0) if sum(face) > 1.6 else (0.95, 0.95, 0.95, 1.0)
        if mark:
            scale = n / 60 / max(1.2, len(mark) * 0.75)
            size = cv2.getTextSize(mark, cv2.FONT_HERSHEY_DUPLEX, scale, 5)[0]
            at = ((n - size[0]) // 2, int(n * (0.62 if outline == 'up' else 0.5)) + size[1] // 2)
            shape = np.zeros((n, n), np.uint8)  # OpenCV 5 writes on nothing else
            cv2.putText(shape, mark, at, cv2.FONT_HERSHEY_DUPLEX, scale, 1, max(3, n // 28))
            image[shape > 0] = ink
        return image

    return draw


def _outline(outline: str, n: int, scale: float) -> np.ndarray:
    sides, turn = {
        'disc': (40, 0.0), 'up': (3, -90.0), 'down': (3, 90.0), 'diamond': (4, 0.0),
        'square': (4, 45.0), 'octagon': (8, 22.5),
    }[outline]  # fmt: skip
    angle = np.radians(turn) + np.arange(sides) * 2 * np.pi / sides
    reach = 0.5 * scale * (1.4 if outline == 'square' else 1.0)
    points = 0.5 + reach * np.stack((np.cos(angle), np.sin(angle)), -1)
    return (points * (n - 1)).round().astype(np.int32)


def signal(lit: tuple[int, ...]) -> Draw:
    """A traffic light's face; lamps 0 red, 1 amber, 2 green."""
    colors = ((1.0, 0.12, 0.08), (1.0, 0.62, 0.1), (0.1, 1.0, 0.55))

    def draw(n: int, rng: np.random.Generator) -> np.ndarray:
        image = gray(0.05 + 0.02 * rng.random((n, n)), 0.0)
        for lamp, color in enumerate(colors):
            shown = np.array(color) * (1.0 if lamp in lit else 0.16)
            center = (n // 2, int(n * (0.19 + 0.31 * lamp)))
            cv2.ellipse(image, center, (int(n * 0.34), int(n * 0.13)), 0, 0, 360, (*shown, 0), -1)
        return image

    return draw


def poster(n: int, rng: np.random.Generator) -> np.ndarray:
    """An advertisement: coloured areas and lines of type."""
    image = np.zeros((n, n, 4), np.float32)
    image[..., :3] = rng.uniform(0.3, 0.95, 3)
    for _ in range(6):
        a, b = (rng.random((2, 2)) * n).astype(int)
        cv2.rectangle(image, a.tolist(), b.tolist(), (*rng.uniform(0, 1, 3), 0), -1)
    cv2.circle(image, (n // 2, n // 2), n // 4, (*rng.uniform(0, 1, 3), 0), -1)
    for y in (0.8, 0.87, 0.93):
        at = int(y * n)
        cv2.line(image, (n // 8, at), (int(rng.uniform(0.5, 0.9) * n), at), (0.1, 0.1, 0.1, 0), 5)
    return image


def grille(n: int, rng: np.random.Generator) -> np.ndarray:
    """A radiator grille: dark with bright slats."""
    y = np.arange(n)[:, None] / n * 7
    value = np.where(y % 1 < 0.25, 0.35, 0.06) + 0.01 * rng.standard_normal((n, n))
    return gray(value, 0.0)


def plate(n: int, rng: np.random.Generator) -> np.ndarray:
    """A number plate without a readable number."""
    image = gray(np.full((n, n), 0.92), 0.0)
    for x in range(n // 7, n - n // 8, n // 8):
        width = n // int(rng.integers(14, 22))
        cv2.rectangle(image, (x, n // 4), (x + width, n - n // 4), (0.08, 0.08, 0.08, 0), -1)
    image[:, : n // 14] = (0.1, 0.2, 0.7, 0)
    return image


def worn(n: int, rng: np.random.Generator) -> np.ndarray:
    """Road paint, rubbed off here and there."""
    value = 0.95 - 0.35 * (noise(n, rng, 10) > 0.62) + 0.04 * rng.standard_normal((n, n))
    return gray(value)
