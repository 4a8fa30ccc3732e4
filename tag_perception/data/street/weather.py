"""Light and air of one picture, and the habits of the sensor that takes it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

KINDS = ('clear', 'cloudy', 'haze', 'rain', 'dusk')
_SHARE = (0.34, 0.36, 0.1, 0.1, 0.1)


@dataclass(frozen=True)
class Weather:
    """One draw of the conditions."""

    kind: str
    sun: np.ndarray
    """(3,) unit vector towards the sun, world."""
    sun_color: np.ndarray
    """(3,) irradiance of a surface facing the sun."""
    sky_color: np.ndarray
    """(3,) irradiance from the sky on a surface facing up."""
    zenith: np.ndarray
    """(3,) colour of the sky overhead; `horizon` likewise at the bottom."""
    horizon: np.ndarray
    cloud: float
    """Share of the sky that clouds cover."""
    cloud_color: np.ndarray
    cloud_shift: tuple[float, float]
    extinction: float
    """Of the air, per metre."""
    wet: float
    """0 dry … 1 puddles everywhere."""
    lamps: float
    """How brightly vehicle lamps burn, 0 … 1."""
    season: float
    """0 summer … 1 autumn."""
    exposure: float
    gain: np.ndarray
    """(3,) white balance."""
    gamma: float
    vignette: float
    """Loss of light in the corners."""
    blur: float
    """Share of light that the lens spreads to each neighbouring pixel."""
    noise: float
    """Standard deviation of the sensor noise, in steps of 1/255."""

    @property
    def shadow(self) -> float:
        """Strength of cast shadows."""
        direct = float(self.sun_color.mean()) * max(float(self.sun[2]), 0.05)
        return 0.85 * direct / (direct + float(self.sky_color.mean()))


def draw(rng: np.random.Generator) -> Weather:
    """Random conditions."""
    kind = str(rng.choice(KINDS, p=_SHARE))
    elevation = rng.uniform(0.25, 1.05) if kind != 'dusk' else rng.uniform(0.03, 0.15)
    azimuth = rng.uniform(-math.pi, math.pi)
    sun = np.array((
        math.cos(elevation) * math.cos(azimuth), math.cos(elevation) * math.sin(azimuth), math.sin(elevation)
    ))  # fmt: skip
    warm = np.array((1.0, 0.93, 0.82)) if elevation > 0.5 else np.array((1.0, 0.85, 0.66))
    direct = {'clear': 1.15, 'cloudy': 0.12, 'haze': 0.3, 'rain': 0.03, 'dusk': 0.08}[
        kind
    ] * rng.uniform(0.75, 1.2)
    ambient = {'clear': 0.5, 'cloudy': 0.8, 'haze': 0.7, 'rain': 0.6, 'dusk': 0.22}[
        kind
    ] * rng.uniform(0.85, 1.15)
    blue, white = np.array((0.36, 0.56, 0.85)), np.array((0.86, 0.89, 0.92))
    cover = {
        'clear': rng.uniform(0, 0.55),
        'cloudy': rng.uniform(0.7, 1),
        'haze': 0.5,
        'rain': 1.0,
        'dusk': rng.uniform(0.2, 1),
    }[kind]
    dim = {'rain': 0.62, 'dusk': 0.34}.get(kind, 1.0)
    gray = rng.uniform(0.55, 0.95)
    glow = np.array((1.0, 0.78, 0.6)) if kind == 'dusk' else white
    return Weather(
        kind, sun, warm * direct, np.array((0.9, 0.97, 1.06)) * ambient, blue * dim * rng.uniform(0.8, 1.1), glow * dim, cover,
        white * dim * (gray if cover > 0.6 else 1.0), (rng.uniform(0, 1), rng.uniform(0, 1)),
        {'haze': rng.uniform(0.004, 0.012), 'rain': rng.uniform(0.003, 0.007)}.get(kind, rng.uniform(0.0003, 0.0018)),
        rng.uniform(0.4, 1.0) if kind == 'rain' else 0.0,
        1.0 if kind in ('dusk', 'rain') else float(rng.random() < 0.15) * 0.6,
        max(0.0, rng.uniform(-1.2, 1.0)), rng.uniform(0.75, 1.2) * (1.5 if kind == 'dusk' else 1.0),
        np.array((1.0, 1.02, 0.98)) * (1 + 0.05 * rng.uniform(-1, 1, 3)), rng.uniform(0.42, 0.62),
        rng.uniform(0.05, 0.35), rng.uniform(0.05, 0.16), rng.uniform(0.8, 3.5) * (1.6 if kind == 'dusk' else 1.0),
    )  # fmt: skip
