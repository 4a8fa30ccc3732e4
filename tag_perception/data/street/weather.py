"""Light and air of one picture, and the habits of the sensor that takes it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tag_perception.data.street.dice import Dice

KINDS = {'clear': 0.34, 'cloudy': 0.36, 'haze': 0.1, 'rain': 0.1, 'dusk': 0.1}
"""Conditions and how often they come."""
_WHITE = np.array((0.86, 0.89, 0.92))
_BLUE = np.array((0.36, 0.56, 0.85))


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
    contrast: float
    """Tone curve: 0 square root … 1 linear."""
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


def draw(dice: Dice) -> Weather:
    """Random conditions."""
    kind = dice.weighted(KINDS)
    dusk, rain = kind == 'dusk', kind == 'rain'
    rise = dice.uniform(0.03, 0.15) if dusk else dice.uniform(0.25, 1.05)
    turn = dice.uniform(-math.pi, math.pi)
    sun = (math.cos(rise) * math.cos(turn), math.cos(rise) * math.sin(turn), math.sin(rise))
    warm = np.array((1.0, 0.93, 0.82) if rise > 0.5 else (1.0, 0.85, 0.66))
    direct = {'clear': 1.3, 'cloudy': 0.12, 'haze': 0.3, 'rain': 0.03, 'dusk': 0.08}[kind]
    ambient = {'clear': 0.5, 'cloudy': 0.85, 'haze': 0.75, 'rain': 0.6, 'dusk': 0.22}[kind]
    clear, gray = dice.uniform(0, 0.55), dice.uniform(0.7, 1)
    cloud = {'clear': clear, 'cloudy': gray, 'haze': 0.5, 'rain': 1.0}
    cover = cloud.get(kind, dice.uniform(0.2, 1))
    air = {'haze': dice.uniform(0.004, 0.012), 'rain': dice.uniform(0.003, 0.007)}
    dim = {'rain': 0.62, 'dusk': 0.34}.get(kind, 1.0)
    dull = dice.uniform(0.55, 0.95) if cover > 0.6 else 1.0
    headlamps = 1.0 if dusk or rain else 0.6 * dice.chance(0.15)
    return Weather(
        kind=kind,
        sun=np.array(sun),
        sun_color=warm * direct * dice.uniform(0.75, 1.2),
        sky_color=np.array((0.9, 0.97, 1.06)) * ambient * dice.uniform(0.85, 1.15),
        zenith=_BLUE * dim * dice.uniform(0.8, 1.1),
        horizon=(np.array((1.0, 0.78, 0.6)) if dusk else _WHITE) * dim,
        cloud=cover,
        cloud_color=_WHITE * dim * dull,
        cloud_shift=(dice.random(), dice.random()),
        extinction=air.get(kind, dice.uniform(0.0003, 0.0018)),
        wet=dice.uniform(0.4, 1.0) * rain,
        lamps=headlamps,
        season=max(0.0, dice.uniform(-1.2, 1.0)),
        exposure=dice.uniform(0.75, 1.35) * (1.5 if dusk else 1.0),
        gain=np.array([dice.uniform(0.95, 1.05) * g for g in (1.0, 1.02, 0.98)]),
        contrast=dice.uniform(0.0, 0.35),
        vignette=dice.uniform(0.05, 0.35),
        blur=dice.uniform(0.05, 0.16),
        noise=dice.uniform(0.5, 2.8) * (1.6 if dusk else 1.0),
    )
