"""Semantic segmentation: one of the 19 Cityscapes classes for every pixel."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tag_perception.core.labels import SEMANTIC_CLASSES, UNLABELLED
from tag_perception.core.structures import Sample, View


class Head(nn.Sequential):
    """(B, C, h, w) features → (B, 19, h, w) logits: 3×3 convolution, ReLU, 1×1 convolution."""

    def __init__(self, in_channels: int, hidden: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, hidden, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, len(SEMANTIC_CLASSES), 1),
        )


def encode_target(sample: Sample, stride: int) -> dict[str, Tensor]:
    """{'train_id': (H, W) uint8}: the labels as they are; the loss compares at their resolution.

    Raises ValueError where the sample has no semantic labels.
    """
    if sample.semantic is None:
        raise ValueError(f'{sample.name} has no semantic labels; leave task semantic out')
    return {'train_id': torch.from_numpy(sample.semantic)}


def loss(output: Tensor, target: dict[str, Tensor]) -> dict[str, Tensor]:
    """Cross-entropy per labelled pixel, with the logits upsampled to the labels; 0 if all void."""
    train_id = target['train_id'].long()
    size = (train_id.shape[-2], train_id.shape[-1])
    # One image at a time, the 19 logits of a pixel side by side: 2.7 times faster on a CPU, whose
    # cache holds the upsampled logits of one image (8 images of 256 × 512: 0.13 s, not 0.34 s).
    totals = [
        F.cross_entropy(
            upsample(logits.contiguous(memory_format=torch.channels_last), size)
            .permute(0, 2, 3, 1)
            .reshape(-1, len(SEMANTIC_CLASSES)),
            truth.flatten(),
            ignore_index=UNLABELLED,
            reduction='sum',
        )
        for logits, truth in zip(output.split(1), train_id.split(1), strict=True)
    ]
    labelled = (train_id != UNLABELLED).sum().clamp_min(1)
    return {'cross_entropy': torch.stack(totals).sum() / labelled}


def decode(output: Tensor, view: View) -> Tensor:
    """(B, H, W) uint8 train ids at the size of the camera image."""
    # Channels last, because the CPU searches the largest of 19 neighbours 5 times faster.
    logits = upsample(output.contiguous(memory_format=torch.channels_last), view.image_size)
    return logits.argmax(1).to(torch.uint8)


def upsample(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, 19, H, W) float32, bilinear; the corners of both grids coincide, as in preprocessing."""
    return F.interpolate(logits.float(), size=size, mode='bilinear', align_corners=False)
