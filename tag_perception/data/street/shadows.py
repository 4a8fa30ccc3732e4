"""Shadows as dark shapes lying in the ground: contact shadows, cast shadows, dappled crowns."""

from __future__ import annotations

import math

import numpy as np
import torch

from tag_perception.data.street.planes import SHADOW, Polygons
from tag_perception.data.street.stage import Standing
from tag_perception.data.street.textures import TEXTURE
from tag_perception.data.street.weather import Weather

LONGEST_M = 30.0
"""Cast shadows are cut here."""
CONTACT, HARD, FAINTEST = (0.62, 0.3), 1e-3, 0.15
"""Strength and softness of a contact shadow; softness, and least strength, of a cast one."""


def cast(standing: Standing, weather: Weather, device: str) -> Polygons:
    """All shadows of the placements that have one."""
    boxes, crowns = (np.nonzero(standing.shadow == kind)[0] for kind in (1, 2))
    soft = _on_ground(standing, boxes, _footprint(standing, boxes, margin=0.18))
    shadows = [(soft, 'plain', CONTACT)]
    if weather.shadow > FAINTEST:
        foot = _footprint(standing, boxes)  # (n, 4, 2) along, left of the placement
        moved = foot + _shift(standing, boxes, weather)[:, None]
        sides = [
            np.stack((foot[:, i], foot[:, j], moved[:, j], moved[:, i]), 1)
            for i, j in ((0, 1), (1, 2), (2, 3), (3, 0))
        ]
        for shape in (foot, moved, *sides):
            quads = _on_ground(standing, boxes, shape)
            shadows.append((quads, 'plain', (weather.shadow, HARD)))
        leaves = _on_ground(standing, crowns, _crown(standing, crowns, weather))
        shadows.append((leaves, 'crown_round', (0.9 * weather.shadow, HARD)))
    return _polygons(shadows, device)


def _polygons(shadows: list[tuple[np.ndarray, str, tuple[float, float]]], device: str) -> Polygons:
    """From corners (n, 4, 3), texture, and strength and softness."""
    count = [len(quads) for quads, _, _ in shadows]
    texture = np.repeat([TEXTURE[name] for _, name, _ in shadows], count).astype(np.int32)
    tone = np.zeros((4, len(texture)), np.float32)
    tone[:2] = np.repeat(np.array([tones for _, _, tones in shadows]).T, count, axis=1)
    corner = np.concatenate([quads for quads, _, _ in shadows]).transpose(1, 2, 0)
    nothing = torch.zeros(len(texture), dtype=torch.int32, device=device)
    square = torch.ones(2, len(texture), device=device)
    return Polygons(
        corner=torch.from_numpy(np.ascontiguousarray(corner, np.float32)).to(device),
        texture=torch.from_numpy(texture).to(device),
        repeat=square,
        origin=torch.zeros_like(square),
        color=torch.from_numpy(tone).to(device),
        thing=nothing,
        label=nothing,
        kind=nothing + SHADOW,
    )


def _footprint(standing: Standing, chosen: np.ndarray, margin: float = 0.0) -> np.ndarray:
    """(n, 4, 2) corners of the footprints in along, left coordinates around the placement."""
    low = standing.extents[chosen, 0, :2] - margin
    high = standing.extents[chosen, 1, :2] + margin
    corner = np.stack(
        (low, np.stack((high[:, 0], low[:, 1]), 1), high, np.stack((low[:, 0], high[:, 1]), 1)), 1
    )
    cos, sin = np.cos(standing.yaw[chosen])[:, None], np.sin(standing.yaw[chosen])[:, None]
    return np.stack(
        (cos * corner[..., 0] - sin * corner[..., 1], sin * corner[..., 0] + cos * corner[..., 1]),
        -1,
    )


def _on_ground(standing: Standing, chosen: np.ndarray, corner: np.ndarray) -> np.ndarray:
    """(n, 4, 3) world corners in the tangent plane of the ground."""
    along, left = standing.along[chosen, None], standing.left[chosen, None]
    return standing.ground[chosen, None] + corner[..., :1] * along + corner[..., 1:] * left


def _direction(standing: Standing, chosen: np.ndarray, weather: Weather) -> np.ndarray:
    """(n, 2) where the sun throws a shadow of height 1, in along, left coordinates."""
    flat = -weather.sun[:2] / max(float(weather.sun[2]), 0.02)
    along, left = standing.along[chosen, :2], standing.left[chosen, :2]
    return np.stack((along @ flat, left @ flat), 1)


def _shift(standing: Standing, chosen: np.ndarray, weather: Weather) -> np.ndarray:
    height = (
        standing.position[chosen, 2] - standing.ground[chosen, 2] + standing.extents[chosen, 1, 2]
    )
    shift = _direction(standing, chosen, weather) * height[:, None]
    length = np.linalg.norm(shift, axis=1, keepdims=True)
    return shift * np.minimum(1, LONGEST_M / np.maximum(length, 1e-6))


def _crown(standing: Standing, chosen: np.ndarray, weather: Weather) -> np.ndarray:
    height, width = standing.extents[chosen, 1, 2], standing.extents[chosen, 1, 1]
    direction = _direction(standing, chosen, weather)
    length = np.linalg.norm(direction, axis=1, keepdims=True)
    unit = direction / np.maximum(length, 1e-6)
    middle = unit * np.minimum(length * 0.62 * height[:, None], LONGEST_M)
    half = unit * (np.minimum(length, math.sqrt(8)) * 0.4 + 0.3) * height[:, None]
    across = np.stack((-unit[:, 1], unit[:, 0]), 1) * width[:, None]
    return np.stack(
        (
            middle - half - across,
            middle + half - across,
            middle + half + across,
            middle - half + across,
        ),
        1,
    )
