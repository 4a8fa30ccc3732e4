"""What every backbone promises: an image goes in, one shared feature map h comes out."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn


class Features(NamedTuple):
    """What a backbone hands to the attention and the heads; symbols of the paper."""

    h: Tensor
    """(B, channels, H/stride, W/stride) task-generic feature."""
    x_semantic: Tensor
    """(B, semantic_channels, …) deepest feature of the semantic path."""
    x_detail: Tensor | None = None
    """(B, detail_channels, H/stride, W/stride) high-resolution feature, where there is one."""
    auxiliary: Tensor | None = None
    """(B, auxiliary_channels, …) earlier feature that auxiliary heads watch in training."""
    boundary: Tensor | None = None
    """(B, boundary_channels, …) feature of a boundary branch (PIDNet), watched in training."""


class Backbone(nn.Module):
    """Base of all backbones: `forward(image (B, 3, H, W)) -> Features`, sides multiples of 32."""

    stride: int
    """Pixels per cell of h."""
    channels: int
    """Channels of h."""
    semantic_channels: int
    detail_channels: int | None = None
    auxiliary_channels: int | None = None
    boundary_channels: int | None = None
