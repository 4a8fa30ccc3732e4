"""Pixels → picture: texture, light, shadow, sky, air, and the sensor's own habits."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from tag_perception.data.street.raster import DECAL, GROUND, Lens, Pixels, pixel_grid
from tag_perception.data.street.textures import SIDE, STRIDE, TEXTURE, Atlas
from tag_perception.data.street.weather import Weather

GRAIN = 1 << 20
"""Length of the table of normal deviates that sensor noise is read from."""


def shade(
    pixels: Pixels, lens: Lens, atlas: Atlas, weather: Weather, bonnet: Tensor | None, grain: int
) -> Tensor:
    """(H, W, 3) uint8 RGB; `bonnet` (H, W) bool is painted over, `grain` picks the noise."""
    device = pixels.depth.device
    tables = _tables(pixels, weather)
    column, row = pixel_grid(lens, device)
    polygon = pixels.polygon
    depth = torch.where(pixels.hit, pixels.depth, 1.0)
    attributes = tables.index_select(0, polygon)
    u, v = (_coordinate(attributes, 4 * i, column, row, depth) for i in (0, 1))
    log_depth = torch.log2(depth)
    texture = pixels.planes.polygons.texture.index_select(0, polygon)
    texel = atlas.sample(texture, u, v, attributes[:, 8] + 1.5 * log_depth).to(torch.float32)
    dirt = _dirt(atlas, u, v, log_depth)
    tint = attributes[:, 9:12]
    mask = (texel[:, 3:] * (1 / 255)).maximum(attributes[:, 15:16])
    color = (
        texel[:, :3] * (1 / 255) * (attributes[:, 12:15] + mask * (tint - attributes[:, 12:15]))
    )
    color = color * (pixels.shade * dirt)[:, None]
    sky = _sky(lens, weather, atlas, column, row)
    haze = _vector(weather.horizon, device) * 0.95
    clear = torch.exp(-weather.extinction * depth)[:, None]
    color = haze + clear * (color - haze)
    image = torch.where(pixels.hit[:, None], color, sky).view(lens.height, lens.width, 3)
    if bonnet is not None:
        image = torch.where(bonnet[..., None], _bonnet(lens, weather, device), image)
    return _expose(image, weather, grain)


def _tables(pixels: Pixels, weather: Weather) -> Tensor:
    """(P, 16) per polygon: u and v maps, mip offset, tinted colour, untinted light, cut-out flag."""
    planes, polygons = pixels.planes, pixels.planes.polygons
    device = planes.detail.device
    sun, sun_color = _vector(weather.sun, device), _vector(weather.sun_color, device)
    sky_color = _vector(weather.sky_color, device)
    facing = (planes.normal * sun).sum(-1).clamp_min(0)[:, None]
    upward = (0.62 + 0.38 * planes.normal[:, 2])[:, None]
    light = facing * sun_color + upward * sky_color
    is_ground = (polygons.kind == GROUND) | (polygons.kind == DECAL)
    wet = torch.where(is_ground, weather.wet, 0.0)[:, None]
    glow = polygons.color[:, 3:]
    tinted = polygons.color[:, :3] * (light * (1 - 0.45 * wet) + glow)
    tinted = tinted + 0.10 * wet * _vector(weather.horizon, device)
    cutout = _is_cutout(polygons.texture, planes)
    columns = (
        planes.along,
        planes.up,
        planes.detail[:, None],
        tinted,
        light + glow,
        cutout[:, None],
    )
    return torch.cat(columns, 1).to(torch.float32)


def _is_cutout(texture: Tensor, planes: object) -> Tensor:
    from tag_perception.data.street.textures import CUTOUT

    table = torch.from_numpy(CUTOUT.astype(np.float32)).to(texture.device)
    return table.index_select(0, texture)


def _coordinate(
    attributes: Tensor, first: int, column: Tensor, row: Tensor, depth: Tensor
) -> Tensor:
    a, b, c, d = (attributes[:, first + i] for i in range(4))
    return depth * (a * column + b * row + c) + d


def _dirt(atlas: Atlas, u: Tensor, v: Tensor, log_depth: Tensor) -> Tensor:
    """Slow brightness variation that hides the repetition of textures."""
    noise = torch.full_like(u, TEXTURE['noise'], dtype=torch.int32)
    value = atlas.sample(noise, u * 0.137, v * 0.137, log_depth - 2)[:, 0]
    return 0.86 + value.to(torch.float32) * (0.28 / 255)


def _sky(lens: Lens, weather: Weather, atlas: Atlas, column: Tensor, row: Tensor) -> Tensor:
    """(N, 3) gradient, clouds and the glow around the sun; evaluated only above the horizon."""
    device = column.device
    ray = torch.stack(
        ((column - lens.u0) / lens.fx, (row - lens.v0) / lens.fy, torch.ones_like(row))
    )
    x, y, z = (sum(lens.rotation[i, j] * ray[i] for i in range(3)) for j in range(3))
    length = torch.sqrt(x * x + y * y + z * z)
    rise = (z / length).clamp_min(0)
    fade = torch.exp(-4.5 * rise)[:, None]
    zenith, horizon = _vector(weather.zenith, device), _vector(weather.horizon, device)
    color = zenith + fade * (horizon - zenith)
    drop = 0.35 / (rise + 0.12)
    du, dv = weather.cloud_shift
    clouds = torch.full_like(x, TEXTURE['noise'], dtype=torch.int32)
    flat = torch.zeros_like(x)
    low = atlas.sample(clouds, x / length * drop * 0.5 + du, y / length * drop * 0.5 + dv, flat)[
        :, 0
    ]
    high = atlas.sample(clouds, x * drop * 1.7 + dv, y * drop * 1.7 + du, flat)[:, 0]
    density = (low.to(torch.float32) * 0.7 + high.to(torch.float32) * 0.3) / 255
    cover = ((density - (0.86 - 0.75 * weather.cloud)) * 4).clamp(0, 1)
    shape = 0.78 + 0.35 * density
    color = color + (cover * 0.92)[:, None] * (
        shape[:, None] * _vector(weather.cloud_color, device) - color
    )
    sun = _vector(weather.sun, device)
    angle = ((x * sun[0] + y * sun[1] + z * sun[2]) / length).clamp(0, 1)
    glare = (angle**24 * (1 - 0.7 * weather.cloud) * 0.5)[:, None]
    return color + glare * _vector(weather.sun_color, device)


def _bonnet(lens: Lens, weather: Weather, device: torch.device) -> Tensor:
    """Dark lacquer that mirrors the sky."""
    row = torch.linspace(0.16, 0.05, lens.height, device=device)[:, None, None]
    return row * _vector(weather.horizon, device) * 1.4 + 0.02


def _expose(image: Tensor, weather: Weather, grain: int) -> Tensor:
    """Lens blur, vignetting, exposure, tone curve, noise, rounding."""
    height, width, _ = image.shape
    device = image.device
    image = _blur(_blur(image, weather.blur, 0), weather.blur, 1)
    image = image * (_vignette(height, width, str(device), weather.vignette)[..., None])
    image = image * (_vector(weather.gain, device) * (weather.exposure * 0.62))
    image = 255 * image.clamp(1e-4, 1.0) ** weather.gamma
    noise = _grain(str(device))
    count, start = height * width * 3, grain % GRAIN
    turns = 1 + (start + count) // GRAIN
    wrapped = (noise.repeat(turns) if turns > 1 else noise)[start : start + count]
    image = image + weather.noise * wrapped.view(height, width, 3)
    return (image + 0.5).clamp(0, 255).to(torch.uint8)


def _blur(image: Tensor, share: float, axis: int) -> Tensor:
    size = image.shape[axis]
    inner = image.narrow(axis, 1, size - 2) * (1 - 2 * share)
    inner = inner + share * (image.narrow(axis, 0, size - 2) + image.narrow(axis, 2, size - 2))
    return torch.cat((image.narrow(axis, 0, 1), inner, image.narrow(axis, size - 1, 1)), axis)


@lru_cache(maxsize=8)
def _radius(height: int, width: int, device: str) -> Tensor:
    y = torch.linspace(-1, 1, height, device=device)[:, None] * height / width
    x = torch.linspace(-1, 1, width, device=device)[None]
    return (x * x + y * y) / (1 + (height / width) ** 2)


def _vignette(height: int, width: int, device: str, strength: float) -> Tensor:
    return 1 - strength * _radius(height, width, device)


@lru_cache(maxsize=4)
def _grain(device: str) -> Tensor:
    table = np.random.default_rng(GRAIN).standard_normal(GRAIN, np.float32)
    return torch.from_numpy(table).to(device)


def _vector(values: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(np.asarray(values, np.float32)).to(device)
