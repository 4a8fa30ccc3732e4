"""The enhanced two-pathway backbone (paper section III-A, Table I, Algorithm 1).

A semantic path goes down to 1/64 of the image; a detail path leaves it after layer 2 and stays
at 1/8. The aggregation layers climb back from the last three stages of the semantic path, and both
meet in the task-generic feature h. Channels are multiples of the base width w (64 in the paper).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tag_perception.core.backbones.backbone import Backbone, Features
from tag_perception.core.backbones.blocks import (
    BasicBlock,
    Bottleneck,
    ConvNorm,
    stage,
    upsample_to,
)


class TwoPathway(Backbone):
    """Semantic path, detail path and aggregation; the arguments are fields of NetworkConfig."""

    stride = 8

    def __init__(
        self,
        width: int = 64,
        high_resolution_branch: bool = True,
        context: Literal['aggregation', 'ppm'] = 'aggregation',
        detail_blocks: Sequence[int] = (1, 1, 0),
        layer5_blocks: int = 1,
        p1_kernel: int = 3,
    ) -> None:
        super().__init__()
        w = width
        self.channels, self.semantic_channels, self.detail_channels = 4 * w, 16 * w, 2 * w
        self.stem = nn.Sequential(
            ConvNorm(3, w, stride=2, bias=True), ConvNorm(w, w, stride=2, bias=True)
        )
        self.layer1 = stage(BasicBlock, w, w, blocks=2)
        self.layer2 = stage(BasicBlock, w, 2 * w, blocks=2, stride=2)
        self.layer3 = stage(BasicBlock, 2 * w, 4 * w, blocks=2, stride=2)
        self.layer4 = stage(BasicBlock, 4 * w, 8 * w, blocks=2, stride=2)
        self.layer5 = stage(Bottleneck, 8 * w, 8 * w, 16 * w, blocks=layer5_blocks, stride=2)
        # Without the branch x_detail is layer 2's output, from which beta can still be taken.
        self.detail = (
            _detail_path(2 * w, detail_blocks) if high_resolution_branch else nn.Identity()
        )
        self.context = (
            Aggregation((4 * w, 8 * w, 16 * w), p1_kernel)
            if context == 'aggregation'
            else PyramidPooling(16 * w, 4 * w)
        )
        self.g = ConvNorm(2 * w, 4 * w, 1, relu=False) if high_resolution_branch else None

    def forward(self, image: Tensor) -> Features:
        """(B, 3, H, W) → h (B, 4w, H/8, W/8), x_semantic (B, 16w, H/64, W/64), x_detail."""
        x2 = self.layer2(self.layer1(self.stem(image)))  # (B, 2w, H/8, W/8)
        x3 = self.layer3(x2)  # (B, 4w, H/16, W/16)
        x4 = self.layer4(x3)  # (B, 8w, H/32, W/32)
        x_semantic = self.layer5(x4)  # (B, 16w, H/64, W/64)
        x_detail = self.detail(x2)  # (B, 2w, H/8, W/8)
        x_agg = self.context([x3, x4, x_semantic])  # (B, 4w, H/16, W/16), Algorithm 1
        h = upsample_to(x_agg, like=x_detail)  # Eq. 2: h = B(x_agg) + g(x_detail)
        if self.g is not None:
            h = h + self.g(x_detail)
        return Features(h, x_semantic, x_detail)


class Node(nn.Module):
    """f_ij(x, y) = W_P2 · concat(B(W_P1 · x), y), x being the deeper map (paper Eq. 1)."""

    def __init__(self, x_channels: int, y_channels: int, p1_kernel: int = 3) -> None:
        super().__init__()
        self.P1 = ConvNorm(x_channels, y_channels, p1_kernel)
        self.P2 = ConvNorm(2 * y_channels, y_channels, 3)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Shape of y."""
        return self.P2(torch.cat([upsample_to(self.P1(x), like=y), y], dim=1))


class Aggregation(nn.Module):
    """Algorithm 1: iterative deep aggregation, from shallow layers to deeper ones."""

    def __init__(self, channels: Sequence[int], p1_kernel: int = 3) -> None:
        super().__init__()
        self.f = nn.ModuleDict(
            {
                f'{i}{j}': Node(channels[j], channels[j - 1], p1_kernel)
                for i in range(1, len(channels))
                for j in range(i, 0, -1)
            }
        )

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """x_agg, of the shape of features[0]; the list goes from shallow to deep."""
        L = list(features)
        for i in range(1, len(L)):
            for j in range(i, 0, -1):
                # The listing writes f(L[j-1], L[j]), but Eq. 1 enlarges its first argument, so
                # that has to be the deeper one.
                L[j - 1] = self.f[f'{i}{j}'](L[j], L[j - 1])
        return L[0]


class PyramidPooling(nn.Module):
    """PSPNet's context module on the deepest feature: Table III's stand-in for aggregation."""

    BINS = (1, 2, 3, 6)

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(ConvNorm(in_channels, channels, 1) for _ in self.BINS)
        self.fuse = ConvNorm(in_channels + len(self.BINS) * channels, channels, 3)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """(B, channels, h, w) of the last, deepest feature (B, in_channels, h, w)."""
        x = features[-1]
        pooled = [
            upsample_to(branch(F.adaptive_avg_pool2d(x, bins)), like=x)
            for bins, branch in zip(self.BINS, self.branches, strict=True)
        ]
        return self.fuse(torch.cat([x, *pooled], dim=1))


def _detail_path(channels: int, blocks: Sequence[int]) -> nn.Sequential:
    """Blocks beside layers 3, 4 (basic) and 5 (bottleneck); none changes the resolution."""
    in_layer3, in_layer4, in_layer5 = blocks
    return nn.Sequential(
        *(BasicBlock(channels, channels) for _ in range(in_layer3 + in_layer4)),
        *(Bottleneck(channels, channels // 2, channels) for _ in range(in_layer5)),
    )
