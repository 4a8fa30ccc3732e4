"""What happens to maps between the convolutions, each in one pass over the memory."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from tag_perception.core.preprocess import MEAN, STD
from tag_perception.runtime.kernels.convolution import largest_block

CELLS = 16
"""What one program computes of a row, with all channels, …"""
NUMBERS = 2048
"""… and of images."""


def normalise(images: Tensor, bgr: Tensor, dtype: torch.dtype) -> Tensor:
    """`preprocess.to_input` without resizing: (B, 3, H, W) of (B, H, W, 3) uint8.

    `bgr` is (B,) uint8, 1 for an image whose channels are in that order.
    """
    out = images.new_empty(images.shape, dtype=dtype)
    levels = (255 * torch.tensor([MEAN, STD])).flatten().tolist()
    size = images[0].numel()
    grid = (triton.cdiv(size, NUMBERS), len(images))
    _normalise[grid](images, bgr, out, size, *levels, NUMBERS)
    return out.permute(0, 3, 1, 2)


def concat_upsampled(x: Tensor, y: Tensor) -> Tensor:
    """concat(B(x), y) of Eq. 1: (B, 2 C, H, W) of (B, C, h, w) and (B, C, H, W)."""
    batch, channels, height, width = y.shape
    out = y.new_empty(batch, height, width, 2 * channels)
    _concat_upsampled[_grid(y)](
        *_strided(x), *_strided(y), out, x.shape[2], x.shape[3], height, width, channels,
        CELLS, largest_block(channels),
    )  # fmt: skip
    return out.permute(0, 3, 1, 2)


def attend(x: Tensor, detail: Tensor, alpha: Tensor, beta: Tensor) -> list[Tensor]:
    """h_t = alpha_t · (B(x) + detail) + beta, Eq. 2 to 4: one (B, C, H, W) per task.

    x is (B, C, h, w), `detail` (B, C, H, W), alpha (T, B, C) and beta (B, 1, H, W).
    """
    batch, channels, height, width = detail.shape
    out = detail.new_empty(len(alpha), batch, height, width, channels)
    _attend[_grid(detail)](
        *_strided(x), *_strided(detail), alpha.contiguous(), beta, beta.stride(0), beta.stride(2),
        beta.stride(3), out, x.shape[2], x.shape[3], height, width, channels, batch, len(alpha),
        CELLS, largest_block(channels),
    )  # fmt: skip
    return [h_t.permute(0, 3, 1, 2) for h_t in out]


@triton.jit
def _normalise(
    images, bgr, out, size, mean_r, mean_g, mean_b, std_r, std_g, std_b, block: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(1).to(tl.int64)
    images, out = images + image * size, out + image * size
    at = tl.program_id(0) * block + tl.arange(0, block)
    channel = at % 3
    turned = tl.load(bgr + image).to(tl.int32) * (2 - 2 * channel)
    value = tl.load(images + at + turned, mask=at < size, other=0).to(tl.float32)
    mean = tl.where(channel == 0, mean_r, tl.where(channel == 1, mean_g, mean_b))
    std = tl.where(channel == 0, std_r, tl.where(channel == 1, std_g, std_b))
    tl.store(out + at, ((value - mean) / std).to(out.dtype.element_ty), mask=at < size)


@triton.jit
def _upsampled(
    x, stride_b, stride_y, stride_x, image, row, column, channel, from_height, from_width,
    height, width,
):  # fmt: skip
    """(cells, channels) of the map enlarged to height × width, as torch does without corners."""
    y = tl.maximum((row + 0.5) * (from_height / height) - 0.5, 0.0)
    across = tl.maximum((column + 0.5) * (from_width / width) - 0.5, 0.0)
    top = tl.minimum(y.to(tl.int32), from_height - 1)
    left = tl.minimum(across.to(tl.int32), from_width - 1)
    down = y - top
    right = (across - left)[:, None]
    below = tl.minimum(top + 1, from_height - 1)
    beside = tl.minimum(left + 1, from_width - 1)
    upper = x + image * stride_b + top * stride_y + channel[None, :]
    lower = x + image * stride_b + below * stride_y + channel[None, :]
    left = left[:, None] * stride_x
    beside = beside[:, None] * stride_x
    above = (1 - right) * tl.load(upper + left).to(tl.float32)
    above += right * tl.load(upper + beside).to(tl.float32)
    under = (1 - right) * tl.load(lower + left).to(tl.float32)
    under += right * tl.load(lower + beside).to(tl.float32)
    return (1 - down) * above + down * under


@triton.jit
def _concat_upsampled(
    x, x_stride_b, x_stride_y, x_stride_x, y, y_stride_b, y_stride_y, y_stride_x, out,
    from_height, from_width, height, width, depth, cells: tl.constexpr, channels: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(1)
    image = tl.program_id(2).to(tl.int64)
    column = tl.program_id(0) * cells + tl.arange(0, cells)
    here = (column < width)[:, None]
    inside = tl.minimum(column, width - 1)
    target = out + ((image * height + row) * width + column[:, None]) * 2 * depth
    for start in range(0, depth, channels):
        channel = start + tl.arange(0, channels)
        larger = _upsampled(
            x, x_stride_b, x_stride_y, x_stride_x, image, row, inside, channel,
            from_height, from_width, height, width,
        )  # fmt: skip
        same = y + image * y_stride_b + row * y_stride_y + inside[:, None] * y_stride_x
        value = tl.load(same + channel[None, :])
        tl.store(target + channel[None, :], larger.to(out.dtype.element_ty), mask=here)
        tl.store(target + depth + channel[None, :], value, mask=here)


@triton.jit
def _attend(
    x, x_stride_b, x_stride_y, x_stride_x, detail, d_stride_b, d_stride_y, d_stride_x,
    alpha, beta, beta_stride_b, beta_stride_y, beta_stride_x, out,
    from_height, from_width, height, width, depth, batch, tasks: tl.constexpr,
    cells: tl.constexpr, channels: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(1)
    image = tl.program_id(2).to(tl.int64)
    column = tl.program_id(0) * cells + tl.arange(0, cells)
    here = (column < width)[:, None]
    inside = tl.minimum(column, width - 1)
    added = tl.load(
        beta + image * beta_stride_b + row * beta_stride_y + inside * beta_stride_x
    ).to(tl.float32)[:, None]
    for start in range(0, depth, channels):
        channel = start + tl.arange(0, channels)
        h = _upsampled(
            x, x_stride_b, x_stride_y, x_stride_x, image, row, inside, channel,
            from_height, from_width, height, width,
        )  # fmt: skip
        same = detail + image * d_stride_b + row * d_stride_y + inside[:, None] * d_stride_x
        h += tl.load(same + channel[None, :]).to(tl.float32)
        for task in tl.static_range(tasks):
            at = task * batch + image
            factor = tl.load(alpha + at * depth + channel).to(tl.float32)[None, :]
            target = out + ((at * height + row) * width + column[:, None]) * depth
            value = (factor * h + added).to(out.dtype.element_ty)
            tl.store(target + channel[None, :], value, mask=here)


def _grid(maps: Tensor) -> tuple[int, int, int]:
    batch, _, height, width = maps.shape
    return triton.cdiv(width, CELLS), height, batch


def _strided(maps: Tensor) -> tuple[Tensor, int, int, int]:
    """The map and its steps from image to image, row to row and cell to cell."""
    if maps.stride(1) != 1:
        maps = maps.contiguous(memory_format=torch.channels_last)
    return maps, maps.stride(0), maps.stride(2), maps.stride(3)
