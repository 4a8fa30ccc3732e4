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


def cast(standing: Standing, weather: Weather, device: str) -> Polygons:
    """All shadows of the placements that have one."""
    quads, textures, tones = [], [], []
    boxes = np.nonzero(standing.shadow == 1)[0]
    foot = _footprint(standing, boxes, 1.0)  # (n, 4, 2) along, left of the placement
    soft = _footprint(standing, boxes, 1.0, margin=0.18)
    quads.append(_on_ground(standing, boxes, soft))
    textures.append('plain')
    tones.append((0.62, 0.3))
    if weather.shadow > 0.15:
        shift = _shift(standing, boxes, weather)
        moved = foot + shift[:, None]
        sides = [
            np.stack((foot[:, i], foot[:, j], moved[:, j], moved[:, i]), 1)
            for i, j in ((0, 1), (1, 2), (2, 3), (3, 0))
        ]
        for shape in (foot, moved, *sides):
            quads.append(_on_ground(standing, boxes, shape))
            textures.append('plain')
            tones.append((weather.shadow, 1e-3))
        crowns = np.nonzero(standing.shadow == 2)[0]
        quads.append(_on_ground(standing, crowns, _crown(standing, crowns, weather)))
        textures.append('crown_round')
        tones.append((weather.shadow * 0.9, 1e-3))
    counts = [len(quad) for quad in quads]
    texture = np.repeat([TEXTURE[name] for name in textures], counts).astype(np.int32)
    tone = np.zeros((4, len(texture)), np.float32)
    tone[:2] = np.repeat(np.array(tones).T, counts, axis=1)
    corner = np.concatenate(quads).astype(np.float32).transpose(1, 2, 0)
    nothing = torch.zeros(len(texture), dtype=torch.int32, device=device)
    square = torch.ones(2, len(texture), device=device)
    return Polygons(
        corner=torch.from_numpy(np.ascontiguousarray(corner)).to(device),
        texture=torch.from_numpy(texture).to(device),
        repeat=square,
        origin=torch.zeros_like(square),
        color=torch.from_numpy(tone).to(device),
        thing=nothing,
        label=nothing,
        kind=nothing + SHADOW,
    )


def _footprint(
    standing: Standing, chosen: np.ndarray, grow: float, margin: float = 0.0
) -> np.ndarray:
    """(n, 4, 2) corners of the footprints in along, left coordinates around the placement."""
    low = standing.extents[chosen, 0, :2] * grow - margin
    high = standing.extents[chosen, 1, :2] * grow + margin
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
