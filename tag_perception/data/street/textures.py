"""The texture atlas: every surface pattern with its mip levels in one flat tensor.

A texel is four bytes, R G B A, packed into one int32, so that a pixel is shaded by one look-up.
A is the coverage of cut-out textures (leaves, bars, sign outlines) and, for all the others, how
much the colour of the object tints the texel (walls are tinted, their window panes are not).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from tag_perception.data.street.patterns import PATTERNS

SIDE = 256
"""Texels along one side of a texture; a power of two."""
LEVELS = SIDE.bit_length()
STRIDE = (4 * SIDE * SIDE - 1) // 3
"""Texels of one texture with all its mip levels."""

TEXTURE = {pattern.name: index for index, pattern in enumerate(PATTERNS)}
"""Index of each texture by name."""
CUTOUT = np.array([pattern.cutout for pattern in PATTERNS])
TILE_M = np.array([pattern.tile_m for pattern in PATTERNS], np.float32)
"""Metres covered by one tile where a surface asks for metric texture coordinates."""


@dataclass(frozen=True)
class Atlas:
    """All textures on one device."""

    texels: Tensor
    """(textures * STRIDE,) int32, little-endian R G B A."""
    cutout: Tensor
    """(textures,) bool."""
    tile_m: Tensor
    """(textures,) float32."""
    start: Tensor
    """(LEVELS,) int32 first texel of each mip level within a texture."""

    def sample(self, texture: Tensor, u: Tensor, v: Tensor, level: Tensor) -> Tensor:
        """Packed int32 texels at texture coordinates u, v (1 = one tile) and mip levels.

        `texture` and `level` may have fewer leading dimensions than u and v.

        R is the lowest byte; A the highest, so a texel that is covered is a negative number.
        """
        shift = level.clamp(0, LEVELS - 1).to(torch.int32)
        side = torch.bitwise_right_shift(SIDE, shift)
        mask = side - 1
        column = torch.floor(u * side).to(torch.int32).bitwise_and_(mask)
        row = torch.floor(v * side).to(torch.int32).bitwise_and_(mask)
        start = self.start.index_select(0, shift) + texture * STRIDE
        index = row.mul_(side).add_(column).add_(start)
        return self.texels.index_select(0, index.view(-1)).view(index.shape)


@lru_cache(maxsize=4)
def atlas(device: str) -> Atlas:
    """The atlas on a device; drawn once per process (about a second)."""
    texels = np.concatenate([_mip_chain(p.draw(SIDE), p.cutout, p.solid_far) for p in PATTERNS])
    packed = torch.from_numpy(texels.view(np.int32).reshape(-1))
    start = [(4 * SIDE * SIDE - 4 * (SIDE >> level) ** 2) // 3 for level in range(LEVELS)]
    return Atlas(
        texels=packed.to(device),
        cutout=torch.from_numpy(CUTOUT).to(device),
        tile_m=torch.from_numpy(TILE_M).to(device),
        start=torch.tensor(start, dtype=torch.int32).to(device),
    )


def _mip_chain(image: np.ndarray, cutout: bool, solid_far: bool) -> np.ndarray:
    """(STRIDE, 4) uint8 of an (SIDE, SIDE, 4) float image whose first row is the top."""
    level = np.ascontiguousarray(image[::-1].astype(np.float32).clip(0, 1))
    coverage = float((level[..., 3] > 0.5).mean())
    chain = []
    while True:
        stored = level.copy()
        if cutout:
            stored[..., 3] = _keep_coverage(level[..., 3], coverage)
            if solid_far and level.shape[0] <= SIDE // 8:
                stored[..., 3] = 1  # bars thinner than a pixel count as one surface
        chain.append((stored * 255 + 0.5).astype(np.uint8).reshape(-1, 4))
        if level.shape[0] == 1:
            return np.concatenate(chain)
        level = _halve(level, cutout)


def _halve(level: np.ndarray, cutout: bool) -> np.ndarray:
    blocks = level.reshape(level.shape[0] // 2, 2, level.shape[1] // 2, 2, 4)
    if not cutout:
        return blocks.mean((1, 3))
    weight = blocks[..., 3:] + 1e-4  # colours of covered texels only, or edges turn dark
    color = (blocks[..., :3] * weight).sum((1, 3)) / weight.sum((1, 3))
    return np.concatenate((color, blocks[..., 3:].mean((1, 3))), -1)


def _keep_coverage(alpha: np.ndarray, coverage: float) -> np.ndarray:
    """Scale alpha so that as many texels pass the 0.5 test as in the full texture."""
    threshold = max(float(np.quantile(alpha, 1 - coverage)), 1e-3) if coverage < 1 else 0.5
    return (alpha * (0.5 / threshold) * 1.001).clip(0, 1)
