"""Convolution, bias, shortcut and activation in one kernel: no map is written twice.

The 3×3 convolution of a row of cells is nine matrix products of shifted rows with weights. The
tensor memory accelerator fetches both and puts zeros beyond the border; it came with Hopper.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor, nn
from triton.tools.tensor_descriptor import TensorDescriptor

Activation = Literal['none', 'relu', 'sigmoid']
SMALLEST = 16
"""Channels that a matrix product needs on each side."""
FEW_CHANNELS = 3
"""Of an image; `ImageConvolution` reads the neighbours of a pixel as one row of a matrix."""


class Tile(NamedTuple):
    """What one program computes of a row, and how many steps of its loop are under way at once."""

    columns: int
    channels: int
    warps: int
    stages: int


def choose_tile(batch: int, height: int, width: int, channels: int) -> Tile:
    """For an output of this shape; the fastest of 15 for the layers of `tag` on an H100.

    A matrix product needs 64 cells. Maps less wide than that waste some: filling up with cells of
    the next rows took longer.
    """
    if width <= 64:
        return Tile(64, largest_block(channels, 128), 4, 6 if channels >= 256 else 4)
    if channels <= 64:
        return Tile(128, largest_block(channels), 4, 4)
    tiles = batch * height * triton.cdiv(width, 128) * triton.cdiv(channels, 128)
    if channels >= 256 and tiles >= 512:
        return Tile(128, largest_block(channels, 256), 8, 3)
    return Tile(128, largest_block(channels, 128), *((8, 3) if tiles > 128 else (4, 4)))


def largest_block(channels: int, limit: int = 64) -> int:
    """The largest power of two that is at most `limit` and divides `channels`."""
    return min(limit, channels & -channels)


def supports(convolution: nn.Conv2d) -> bool:
    """Whether `Convolution` can take its place."""
    (kernel, across), (stride, _) = convolution.kernel_size, convolution.stride
    dilation = convolution.dilation[0]
    return (
        kernel == across
        and kernel % 2 == 1
        and stride in (1, 2)
        and (stride == 1 or dilation == 1)
        and convolution.padding == (dilation * (kernel // 2),) * 2
        and convolution.groups == 1
        and convolution.in_channels % SMALLEST == 0
    )


class Convolution(nn.Module):
    """activation(convolution + bias [+ shortcut]) of maps in half precision."""

    def __init__(self, convolution: nn.Conv2d, activation: Activation = 'none') -> None:
        """`convolution` is one that is supported; its weights are copied."""
        super().__init__()
        self.channels = convolution.out_channels
        self.stride, self.dilation = convolution.stride[0], convolution.dilation[0]
        self.activation: Activation = activation
        weight, bias = _padded(convolution)
        self.kernel = convolution.kernel_size[0]
        self.weight = _frozen(weight.permute(0, 2, 3, 1).flatten(1))  # (N, kernel · kernel · C)
        self.bias = _frozen(bias)

    def forward(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        """(B, N, ⌈H/stride⌉, ⌈W/stride⌉) of (B, C, H, W), both channels last."""
        if any(side % self.stride for side in x.shape[-2:]):
            # More zeros beyond the border change nothing there.
            x = F.pad(x, (0, x.shape[3] % self.stride, 0, x.shape[2] % self.stride))
        batch, channels, height, width = x.shape
        height, width = height // self.stride, width // self.stride
        tile = choose_tile(batch, height, width, len(self.weight))
        deep = largest_block(channels)
        out = x.new_empty(batch, height, width, len(self.weight))
        across = triton.cdiv(width, tile.columns)
        blocks = len(self.weight) // tile.channels
        written = TensorDescriptor.from_tensor(out, [1, 1, tile.columns, tile.channels])
        _convolve[blocks * across * height, batch](
            _windows(x, self.stride, tile.columns, deep),
            TensorDescriptor.from_tensor(self.weight, [tile.channels, deep]),
            self.bias,
            written if shortcut is None
            else TensorDescriptor.from_tensor(_rows(shortcut), written.block_shape),
            written, across, blocks, channels, self.kernel, self.stride, self.dilation,
            self.activation, shortcut is not None, tile.columns, tile.channels, deep,
            num_warps=tile.warps,
            num_stages=tile.stages,
        )  # fmt: skip
        return out.permute(0, 3, 1, 2)[:, : self.channels]


class ImageConvolution(nn.Module):
    """activation(convolution + bias) of a normalised image, which has only three channels."""

    COLUMNS = 128

    def __init__(self, convolution: nn.Conv2d, activation: Activation = 'none') -> None:
        super().__init__()
        self.channels = convolution.out_channels
        self.kernel, self.stride = convolution.kernel_size[0], convolution.stride[0]
        self.padding = int(convolution.padding[0])
        self.activation: Activation = activation
        weight, bias = _padded(convolution)
        rows = weight.permute(0, 2, 3, 1).flatten(2)  # (N, kernel, kernel · 3)
        deep = max(SMALLEST, triton.next_power_of_2(rows.shape[2]))
        self.weight = _frozen(F.pad(rows, (0, deep - rows.shape[2])))
        self.bias = _frozen(bias)

    def forward(self, image: Tensor) -> Tensor:
        """(B, N, h, w), as the convolution gives it, of (B, 3, H, W)."""
        pixels = _rows(image).contiguous()
        batch, height, width, _ = pixels.shape
        margin = 2 * self.padding - self.kernel
        out_height = (height + margin) // self.stride + 1
        out_width = (width + margin) // self.stride + 1
        out = image.new_empty(batch, out_height, out_width, len(self.weight))
        block = largest_block(len(self.weight))
        columns = triton.cdiv(out_width, self.COLUMNS)
        grid = (columns * triton.cdiv(len(self.weight), block), out_height, batch)
        _convolve_image[grid](
            pixels, self.weight, self.bias, out, height, width, out_height, out_width,
            len(self.weight), columns,
            self.kernel, self.stride, self.padding, self.activation,
            self.COLUMNS, block, self.weight.shape[2],
            num_warps=4,
        )  # fmt: skip
        return out.permute(0, 3, 1, 2)[:, : self.channels]


@triton.jit
def _activate(value, activation: tl.constexpr):
    if activation == 'relu':
        return tl.maximum(value, 0.0)
    if activation == 'sigmoid':
        return 1 / (1 + tl.exp(-value))
    return value


@triton.jit(do_not_specialize=['across', 'blocks'])
def _convolve(
    x, weight, bias, shortcut, out, across, blocks,
    in_channels: tl.constexpr, kernel: tl.constexpr, stride: tl.constexpr,
    dilation: tl.constexpr, activation: tl.constexpr, adds: tl.constexpr,
    columns: tl.constexpr, channels: tl.constexpr, deep: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    channel = program % blocks * channels
    left = program // blocks % across * columns
    row = program // blocks // across
    image = tl.program_id(1)
    steps: tl.constexpr = in_channels // deep
    total = tl.zeros((columns, channels), tl.float32)
    for step in range(kernel * kernel * steps):
        tap = step // steps
        down = (tap // kernel - kernel // 2) * dilation
        right = (tap % kernel - kernel // 2) * dilation
        start = step % steps * deep
        if stride == 1:
            window = x.load([image, row + down, left + right, start])
        else:
            # Pixel 2 y + down is pixel ⌊down / 2⌋ + y of the even or odd ones. Made positive
            # first, since the division rounds towards zero.
            below, beside = down + 2 * kernel, right + 2 * kernel
            window = x.load(
                [
                    image,
                    row + below // 2 - kernel,
                    below % 2,
                    left + beside // 2 - kernel,
                    beside % 2 * in_channels + start,
                ]
            )
        weights = weight.load([channel, step * deep])
        total = tl.dot(window.reshape(columns, deep), weights.T, total)
    total += tl.load(bias + channel + tl.arange(0, channels))[None, :]
    if adds:
        total += shortcut.load([image, row, left, channel]).reshape(columns, channels)
    total = _activate(total, activation).to(out.dtype)
    out.store([image, row, left, channel], total.reshape(1, 1, columns, channels))


@triton.jit
def _convolve_image(
    pixels, weight, bias, out, height, width, out_height, out_width, out_channels, across,
    kernel: tl.constexpr, stride: tl.constexpr, padding: tl.constexpr,
    activation: tl.constexpr, columns: tl.constexpr, channels: tl.constexpr, deep: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(1)
    image = tl.program_id(2).to(tl.int64)
    column = tl.program_id(0) % across * columns + tl.arange(0, columns)
    channel = tl.program_id(0) // across * channels + tl.arange(0, channels)
    near = tl.arange(0, deep)  # the pixels of a window's row, R, G and B of each
    x = column * stride - padding
    touched = x[:, None] + near[None, :] // 3
    inside = (touched >= 0) & (touched < width) & (near[None, :] < 3 * kernel)
    total = tl.zeros((columns, channels), tl.float32)
    for tap in tl.static_range(kernel):
        y = tl.full((1, 1), row * stride + tap - padding, tl.int32)
        start = (image * height + y) * width * 3
        window = tl.load(
            pixels + start + x[:, None] * 3 + near[None, :],
            mask=inside & (y >= 0) & (y < height),
            other=0.0,
        )
        weights = tl.load(weight + (channel[None, :] * kernel + tap) * deep + near[:, None])
        total = tl.dot(window, weights, total)
    total = _activate(total + tl.load(bias + channel)[None, :], activation)
    start = (image * out_height + row) * out_width
    tl.store(
        out + (start + column[:, None]) * out_channels + channel[None, :],
        total.to(out.dtype.element_ty),
        mask=(column < out_width)[:, None],
    )


def _rows(maps: Tensor) -> Tensor:
    """(B, H, W, C), the order in memory."""
    rows = maps.permute(0, 2, 3, 1)
    if rows.stride(3) != 1:
        rows = rows.contiguous()
    # The step to a next row that does not exist may be anything; the accelerator reads it all the
    # same.
    return rows.flatten().view(rows.shape) if 1 in rows.shape[:3] else rows


def _windows(x: Tensor, stride: int, columns: int, deep: int) -> TensorDescriptor:
    """Of the cells of a row; with stride 2 of its even or odd ones."""
    maps = _rows(x)
    if stride == 1:
        return TensorDescriptor.from_tensor(maps, [1, 1, columns, deep])
    split = maps.unflatten(2, (-1, 2)).unflatten(1, (-1, 2)).flatten(4)
    return TensorDescriptor.from_tensor(split, [1, 1, 1, columns, deep])


def _padded(convolution: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """Weight and bias with as many output channels as a matrix product needs."""
    channels = convolution.out_channels
    whole = triton.next_power_of_2(channels) if channels < 64 else channels
    missing = triton.cdiv(whole, SMALLEST) * SMALLEST - channels
    weight, bias = convolution.weight.detach(), convolution.bias
    bias = weight.new_zeros(len(weight)) if bias is None else bias.detach()
    return F.pad(weight, (0, 0, 0, 0, 0, 0, 0, missing)), F.pad(bias, (0, missing))


def _frozen(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value.clone(memory_format=torch.contiguous_format), requires_grad=False)
