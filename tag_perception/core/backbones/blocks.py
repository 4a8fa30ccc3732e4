"""The convolution blocks that the backbones are built from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn


class ConvNorm(nn.Module):
    """Convolution and batch norm, then ReLU unless `relu` is False; odd kernels keep the size."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel: int = 3,
        stride: int = 1,
        *,
        dilation: int = 1,
        bias: bool = False,
        relu: bool = True,
    ) -> None:
        super().__init__()
        padding = dilation * (kernel - 1) // 2
        self.conv = nn.Conv2d(in_channels, channels, kernel, stride, padding, dilation, bias=bias)
        self.norm = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True) if relu else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) → (B, channels, ⌈H/stride⌉, ⌈W/stride⌉)."""
        return self.relu(self.norm(self.conv(x)))


class BasicBlock(nn.Module):
    """3×3, 3×3 and a shortcut, which is a 1×1 convolution where the shape changes (ResNet)."""

    def __init__(
        self, in_channels: int, channels: int, stride: int = 1, *, relu: bool = True
    ) -> None:
        super().__init__()
        self.conv1 = ConvNorm(in_channels, channels, 3, stride)
        self.conv2 = ConvNorm(channels, channels, 3, relu=False)
        self.shortcut = _shortcut(in_channels, channels, stride)
        self.relu = nn.ReLU(inplace=True) if relu else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) → (B, channels, ⌈H/stride⌉, ⌈W/stride⌉)."""
        return self.relu(self.conv2(self.conv1(x)) + self.shortcut(x))


class Bottleneck(nn.Module):
    """1×1 down to `middle`, 3×3, 1×1 up to `channels`, and a shortcut (ResNet)."""

    def __init__(
        self,
        in_channels: int,
        middle: int,
        channels: int,
        stride: int = 1,
        *,
        dilation: int = 1,
        relu: bool = True,
    ) -> None:
        super().__init__()
        self.conv1 = ConvNorm(in_channels, middle, 1)
        self.conv2 = ConvNorm(middle, middle, 3, stride, dilation=dilation)
        self.conv3 = ConvNorm(middle, channels, 1, relu=False)
        self.shortcut = _shortcut(in_channels, channels, stride)
        self.relu = nn.ReLU(inplace=True) if relu else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) → (B, channels, ⌈H/stride⌉, ⌈W/stride⌉)."""
        return self.relu(self.conv3(self.conv2(self.conv1(x))) + self.shortcut(x))


class NormConv(nn.Sequential):
    """Batch norm, ReLU, convolution: the order inside pyramid pooling in DDRNet and PIDNet."""

    def __init__(self, in_channels: int, channels: int, kernel: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(in_channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(
            in_channels, channels, kernel, padding=kernel // 2, groups=groups, bias=False
        )


def stage(
    block: Callable[..., nn.Module],
    in_channels: int,
    *widths: int,
    blocks: int,
    stride: int = 1,
    last_relu: bool = True,
    **options: Any,
) -> nn.Sequential:
    """`blocks` blocks in a row, the first with `stride`; `widths` are the block's, output last.

    Without `last_relu` the stage ends in the plain sum, for something to be added to it.
    """
    rows = []
    for i in range(blocks):
        if i == blocks - 1 and not last_relu:
            options = {**options, 'relu': False}
        rows.append(
            block(widths[-1] if i else in_channels, *widths, 1 if i else stride, **options)
        )
    return nn.Sequential(*rows)


def upsample_to(x: Tensor, like: Tensor) -> Tensor:
    """B(x): bilinear interpolation of x to the height and width of `like`."""
    return F.interpolate(x, size=like.shape[-2:], mode='bilinear', align_corners=False)


def _shortcut(in_channels: int, channels: int, stride: int) -> nn.Module:
    if stride == 1 and in_channels == channels:
        return nn.Identity()
    return ConvNorm(in_channels, channels, 1, stride, relu=False)
