"""Dense depth: metres along the optical axis for every pixel.

The network's raw value x means DEPTH_CAP_M · sigmoid(x). Near the camera that is exponential (a
step in x is a constant percentage, as the picture shows distance), far away it saturates at the
cap, so an error costs at most the cap, the gradient stays below a quarter of it, and nothing
overflows in half precision; 1 … 99 m is x = -4.6 … 4.6.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tag_perception.core.structures import Sample, View

DEPTH_CAP_M = 100.0
"""Largest depth that is learned and decoded, metres; stereo says nothing reliable beyond."""

PRIOR_M = 20.0
"""What an untrained head answers, about the median of a street scene: metres."""


class Head(nn.Sequential):
    """(B, C, h, w) features → (B, 1, h, w) raw depth: 3×3 convolution, ReLU, 1×1 convolution."""

    def __init__(self, in_channels: int, hidden: int) -> None:
        raw = nn.Conv2d(hidden, 1, 1)
        raw.bias = nn.Parameter(torch.tensor([math.log(PRIOR_M / (DEPTH_CAP_M - PRIOR_M))]))
        super().__init__(nn.Conv2d(in_channels, hidden, 3, padding=1), nn.ReLU(inplace=True), raw)


def encode_target(sample: Sample, stride: int) -> dict[str, Tensor]:
    """{'depth_m': (H, W) float32}: the labels as they are, NaN where not measured.

    Raises ValueError where the sample has no depth labels.
    """
    if sample.depth is None:
        raise ValueError(f'{sample.name} has no depth labels; leave task depth out')
    return {'depth_m': torch.from_numpy(sample.depth)}


def loss(output: Tensor, target: dict[str, Tensor], beta_m: float = 1.0) -> dict[str, Tensor]:
    """Smooth L1 per pixel measured in (0, DEPTH_CAP_M]; 0 where there is none.

    Errors below `beta_m` metres count quadratically, those above by their size.
    """
    truth = target['depth_m']
    valid = (truth > 0) & (truth <= DEPTH_CAP_M)  # NaN compares false
    predicted = to_metres(output, (truth.shape[-2], truth.shape[-1]))
    # Filled before the difference: masking a NaN afterwards would leave it in the gradient.
    filled = torch.where(valid, truth, predicted.detach())
    error = F.smooth_l1_loss(predicted, filled, reduction='sum', beta=beta_m)
    return {'smooth_l1': error / valid.sum().clamp_min(1)}


def decode(output: Tensor, view: View) -> Tensor:
    """(B, H, W) float32 metres at the size of the camera image."""
    return to_metres(output, view.image_size)


def to_metres(output: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, H, W) float32 metres of the raw (B, 1, h, w), bilinearly upsampled to `size`."""
    upsampled = F.interpolate(in_metres(output), size=size, mode='bilinear', align_corners=False)
    return upsampled.squeeze(1)


def in_metres(output: Tensor) -> Tensor:
    """(B, 1, h, w) float32 metres of the raw (B, 1, h, w)."""
    return DEPTH_CAP_M * torch.sigmoid(output.float())
