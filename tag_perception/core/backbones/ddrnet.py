"""DDRNet: two resolutions that exchange features after every stage (Hong et al. 2021).

The pyramid pooling (DAPPM) sits at 1/64; its output and the 1/8 path are added to h. The original
segmentation heads are left out, since the network brings its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tag_perception.core.backbones.backbone import Backbone, Features
from tag_perception.core.backbones.blocks import (
    BasicBlock,
    Bottleneck,
    ConvNorm,
    NormConv,
    stage,
    upsample_to,
)


class DDRNet(Backbone):
    """DDRNet-23 (its slim form has width 32) and, with other block counts, DDRNet-39.

    `layer3_blocks` has one entry per exchange of features, each with that many blocks per path.
    """

    stride = 8

    def __init__(
        self,
        width: int = 64,
        layer1_blocks: int = 2,
        layer2_blocks: int = 2,
        layer3_blocks: Sequence[int] = (2,),
        layer4_blocks: int = 2,
        pooling_channels: int = 128,
    ) -> None:
        super().__init__()
        w = width
        self.channels, self.semantic_channels = 4 * w, 16 * w
        self.auxiliary_channels = 2 * w
        self.stem = nn.Sequential(
            ConvNorm(3, w, stride=2, bias=True), ConvNorm(w, w, stride=2, bias=True)
        )
        self.layer1 = stage(BasicBlock, w, w, blocks=layer1_blocks)
        self.layer2 = stage(BasicBlock, w, 2 * w, blocks=layer2_blocks, stride=2)
        self.layer3 = nn.ModuleList(
            DualStage(2 * w if i == 0 else 4 * w, 4 * w, 2 * w, blocks)
            for i, blocks in enumerate(layer3_blocks)
        )
        self.layer4 = DualStage(4 * w, 8 * w, 2 * w, layer4_blocks)
        self.layer5 = Bottleneck(8 * w, 8 * w, 16 * w, 2, relu=False)
        self.detail5 = Bottleneck(2 * w, 2 * w, 4 * w, relu=False)
        self.pooling = DAPPM(16 * w, pooling_channels, 4 * w)

    def forward(self, image: Tensor) -> Features:
        """(B, 3, H, W) → h (B, 4w, H/8, W/8), x_semantic (B, 16w, H/64, W/64)."""
        semantic = detail = self.layer2(self.layer1(self.stem(image)))
        for dual_stage in self.layer3:
            semantic, detail = dual_stage(semantic, detail)
        auxiliary = detail
        semantic, detail = self.layer4(semantic, detail)
        x_semantic = self.layer5(semantic)
        detail = self.detail5(detail)
        h = upsample_to(self.pooling(x_semantic), like=detail) + detail
        return Features(h, x_semantic, auxiliary=auxiliary)


class DualStage(nn.Module):
    """One stage of both paths, then the bilateral fusion: each path adds the other's features."""

    def __init__(self, in_channels: int, channels: int, detail_channels: int, blocks: int) -> None:
        super().__init__()
        stride = 1 if in_channels == channels else 2
        self.semantic = stage(
            BasicBlock, in_channels, channels, blocks=blocks, stride=stride, last_relu=False
        )
        self.detail = stage(
            BasicBlock, detail_channels, detail_channels, blocks=blocks, last_relu=False
        )
        self.compress = ConvNorm(channels, detail_channels, 1, relu=False)
        self.down = _downsampling(detail_channels, channels)
        self.relu = nn.ReLU()

    def forward(self, semantic: Tensor, detail: Tensor) -> tuple[Tensor, Tensor]:
        """Both paths' features → the next ones, after ReLU."""
        semantic, detail = self.semantic(semantic), self.detail(detail)
        fused_semantic = semantic + self.down(self.relu(detail))
        fused_detail = detail + upsample_to(self.compress(self.relu(semantic)), like=detail)
        return self.relu(fused_semantic), self.relu(fused_detail)


class DAPPM(nn.Module):
    """Deep aggregation pyramid pooling: every scale is refined together with the finer one."""

    POOLS = ((5, 2), (9, 4), (17, 8))
    """Kernel and stride of the average pools; a global one follows."""

    def __init__(self, in_channels: int, branch_channels: int, channels: int) -> None:
        super().__init__()
        scales = len(self.POOLS) + 2  # unpooled, pooled, global
        self.scales = nn.ModuleList(NormConv(in_channels, branch_channels) for _ in range(scales))
        self.refine = nn.ModuleList(
            NormConv(branch_channels, branch_channels, 3) for _ in range(scales - 1)
        )
        self.compress = NormConv(scales * branch_channels, channels)
        self.shortcut = NormConv(in_channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, h, w) → (B, channels, h, w)."""
        branches = [self.scales[0](x)]
        for scale, refine, pooled in zip(
            self.scales[1:], self.refine, pyramid(x, self.POOLS), strict=True
        ):
            branches.append(refine(upsample_to(scale(pooled), like=x) + branches[-1]))
        return self.compress(torch.cat(branches, dim=1)) + self.shortcut(x)


def pyramid(x: Tensor, pools: Sequence[tuple[int, int]]) -> list[Tensor]:
    """x averaged by each (kernel, stride) and, last, over the whole map."""
    pooled = [F.avg_pool2d(x, kernel, step, padding=kernel // 2) for kernel, step in pools]
    return [*pooled, F.adaptive_avg_pool2d(x, 1)]


def _downsampling(in_channels: int, channels: int) -> nn.Sequential:
    """3×3 convolutions of stride 2 that double the channels until there are `channels`."""
    rows = []
    while in_channels < channels:
        last = 2 * in_channels == channels
        rows.append(ConvNorm(in_channels, 2 * in_channels, stride=2, relu=not last))
        in_channels *= 2
    return nn.Sequential(*rows)
