"""Pixels → picture: texture, light, shadow, sky, air, and the sensor's own habits.

Colours are planar (3, …) until the last line: that is what vectorises.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tag_perception.data.street.planes import DECAL, GROUND, Lens
from tag_perception.data.street.raster import Pixels
from tag_perception.data.street.textures import TEXTURE, Atlas
from tag_perception.data.street.weather import Weather

GRAIN = 1 << 20
"""Length of the table of normal deviates that sensor noise is read from."""


class Colors(NamedTuple):
    """Vectors of a picture as (3, 1) columns on its device, in one upload."""

    sun: Tensor
    sun_color: Tensor
    sky_color: Tensor
    zenith: Tensor
    horizon: Tensor
    cloud_color: Tensor
    gain: Tensor
    ray_x: Tensor
    """World direction of one step along x of S; `ray_y` and `ray_z` likewise."""
    ray_y: Tensor
    ray_z: Tensor

    @staticmethod
    def of(weather: Weather, lens: Lens, device: torch.device) -> Colors:
        """Those of the weather, and the axes of the camera."""
        named = [getattr(weather, name) for name in Colors._fields[:7]]
        columns = np.array([*named, *lens.rotation], np.float32)[:, :, None]
        return Colors(*torch.from_numpy(columns).to(device))


def shade(
    pixels: Pixels, lens: Lens, atlas: Atlas, weather: Weather, bonnet: Tensor | None, grain: int
) -> Tensor:
    """(H, W, 3) uint8 RGB; `bonnet` (H, W) bool is painted over, `grain` picks the noise."""
    depth = pixels.depth
    colors = Colors.of(weather, lens, depth.device)
    color = _surface(pixels, lens, atlas, weather, colors)
    haze = colors.horizon * 0.95
    color = haze + torch.exp(-weather.extinction * depth) * (color - haze)
    sky = (~pixels.hit).nonzero()[:, 0]
    color[:, sky] = _sky(lens, weather, colors, atlas, sky)
    if bonnet is not None:
        covered = bonnet.view(-1).nonzero()[:, 0]
        color[:, covered] = _bonnet(lens, colors, covered)
    return _expose(color.view(3, lens.height, lens.width), weather, colors, grain)


def _surface(pixels: Pixels, lens: Lens, atlas: Atlas, weather: Weather, colors: Colors) -> Tensor:
    """(3, N) light that leaves the surfaces."""
    table = _tables(pixels, atlas, weather, colors).index_select(1, pixels.polygon)
    column, row = lens.grid(table.device)
    depth = pixels.depth
    maps = table[:8].unflatten(0, (2, 4))
    u, v = depth * (maps[:, 0] * column + maps[:, 1] * row + maps[:, 2]) + maps[:, 3]
    level = torch.log2(depth) * 1.5 + table[8]
    texture = pixels.planes.polygons.texture.index_select(0, pixels.polygon)
    texel = atlas.sample(texture, u, v, level)
    noise = torch.full_like(texture, TEXTURE['noise'])
    # Slow brightness variation hides the repetition of textures.
    dirt = atlas.sample(noise, u * 0.137, v * 0.137, level - 2.9).bitwise_and_(255)
    light = pixels.shade * (0.86 + dirt * (0.28 / 255)) * (1 / 255)
    mask = (texel.bitwise_right_shift(24).bitwise_and_(255) * (1 / 255)).maximum(table[15])
    value = texel.bitwise_right_shift(_shifts(str(table.device))).bitwise_and_(255)
    return value * light * torch.lerp(table[12:15], table[9:12], mask)


def _tables(pixels: Pixels, atlas: Atlas, weather: Weather, colors: Colors) -> Tensor:
    """(16, P) per polygon: u and v maps, mip offset, tinted colour, bare light, cut-out flag."""
    planes, polygons = pixels.planes, pixels.planes.polygons
    facing = (planes.normal * colors.sun).sum(0).clamp_min(0)
    upward = 0.62 + 0.38 * planes.normal[2]
    light = facing * colors.sun_color + upward * colors.sky_color
    wet = weather.wet * ((polygons.kind == GROUND) | (polygons.kind == DECAL))
    glow = polygons.color[3]
    tinted = polygons.color[:3] * (light * (1 - 0.45 * wet) + glow)
    tinted = tinted + 0.10 * wet * colors.horizon
    cutout = atlas.cutout.index_select(0, polygons.texture).to(torch.float32)
    columns = (planes.along, planes.up, planes.detail[None], tinted, light + glow, cutout[None])
    return torch.cat(columns)


def _sky(lens: Lens, weather: Weather, colors: Colors, atlas: Atlas, pixel: Tensor) -> Tensor:
    """(3, n) gradient, clouds and the glow around the sun, at pixel indices."""
    row = torch.div(pixel, lens.width, rounding_mode='floor')
    across = ((pixel - row * lens.width).to(torch.float32) - lens.u0) * (1 / lens.fx)
    down = (row.to(torch.float32) - lens.v0) * (1 / lens.fy)
    x, y, z = ray = colors.ray_x * across + colors.ray_y * down + colors.ray_z
    shrink = torch.rsqrt(x * x + y * y + z * z)
    rise = (z * shrink).clamp_min(0)
    color = colors.zenith + torch.exp(-4.5 * rise) * (colors.horizon - colors.zenith)
    drop = 0.35 / (rise + 0.12)
    du, dv = weather.cloud_shift
    clouds = torch.full_like(pixel, TEXTURE['noise'], dtype=torch.int32)
    scale = shrink * drop
    coarse, fine = scale * 0.5, scale * 1.7
    u = torch.stack((x * coarse + du, x * fine + dv))
    v = torch.stack((y * coarse + dv, y * fine + du))
    large, small = atlas.sample(clouds, u, v, torch.zeros_like(x)) & 255
    density = large * (0.7 / 255) + small * (0.3 / 255)
    cover = ((density - (0.86 - 0.75 * weather.cloud)) * 4).clamp(0, 1) * 0.92
    cloud = (0.78 + 0.35 * density) * colors.cloud_color
    color = color + cover * (cloud - color)
    along = ray * colors.sun
    angle = ((along[0] + along[1] + along[2]) * shrink).clamp(0, 1)
    glare = angle**24 * ((1 - 0.7 * weather.cloud) * 0.5)
    return color + glare * colors.sun_color


def _bonnet(lens: Lens, colors: Colors, pixel: Tensor) -> Tensor:
    """(3, n) dark lacquer that mirrors the sky."""
    height = 1 - pixel.to(torch.float32) / (lens.height * lens.width)
    return 0.02 + (0.06 + 0.9 * height) * colors.horizon


def _expose(image: Tensor, weather: Weather, colors: Colors, grain: int) -> Tensor:
    """Lens blur, vignetting, exposure, tone curve, noise; (3, H, W) → (H, W, 3) uint8."""
    _, height, width = image.shape
    device = image.device
    image = _blur(_blur(image, weather.blur, 1), weather.blur, 2)
    gain = colors.gain[:, None] * (weather.exposure * 0.62)
    image = image * (gain * (1 - weather.vignette * _radius(height, width, str(device))))
    image = image.clamp_(0, 1)
    image = torch.lerp(image.sqrt(), image, weather.contrast)
    count, start = height * width * 3, grain % GRAIN
    table = _grain(str(device))
    turns = 1 + (start + count) // GRAIN
    noise = (table.repeat(turns) if turns > 1 else table)[start : start + count]
    image = torch.addcmul(
        noise.view(3, height, width) * weather.noise, image, image.new_full((), 255.0)
    )
    return torch.stack(image.add_(0.5).clamp_(0, 255).to(torch.uint8).unbind(0), -1)


def _blur(image: Tensor, share: float, axis: int) -> Tensor:
    """Each pixel gives `share` of its light to either neighbour along an axis."""
    size = image.shape[axis]
    result = image * (1 - 2 * share)
    result.narrow(axis, 0, size - 1).add_(image.narrow(axis, 1, size - 1), alpha=share)
    result.narrow(axis, 1, size - 1).add_(image.narrow(axis, 0, size - 1), alpha=share)
    for edge in (0, size - 1):
        result.narrow(axis, edge, 1).add_(image.narrow(axis, edge, 1), alpha=share)
    return result


@lru_cache(maxsize=8)
def _radius(height: int, width: int, device: str) -> Tensor:
    """(H, W) squared distance from the middle, 1 in the corners."""
    y = torch.linspace(-1, 1, height, device=device)[:, None] * height / width
    x = torch.linspace(-1, 1, width, device=device)[None]
    return (x * x + y * y) / (1 + (height / width) ** 2)


@lru_cache(maxsize=4)
def _grain(device: str) -> Tensor:
    table = np.random.default_rng(GRAIN).standard_normal(GRAIN, np.float32)
    return torch.from_numpy(table).to(device)


@lru_cache(maxsize=4)
def _shifts(device: str) -> Tensor:
    """(3, 1) int32 where R, G and B begin in a texel."""
    return torch.tensor([[0], [8], [16]], dtype=torch.int32).to(device)
