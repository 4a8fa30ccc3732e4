"""PIDNet: a proportional, an integral and a derivative path (Xu et al. 2023).

P keeps detail at 1/8, I gathers context down to 1/64, D looks for boundaries at 1/8 and decides,
cell by cell, which of the other two makes h. The original segmentation heads are left out.
"""

from __future__ import annotations

import torch
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
from tag_perception.core.backbones.ddrnet import DAPPM, pyramid


class PIDNet(Backbone):
    """PIDNet-S (width 32), -M (width 64) and, with `large` blocks and modules, -L."""

    stride = 8

    def __init__(self, width: int = 64, large: bool = False) -> None:
        super().__init__()
        w = width
        shallow, deep = (3, 4) if large else (2, 3)
        self.channels, self.semantic_channels = 4 * w, 16 * w
        self.auxiliary_channels = self.boundary_channels = 2 * w

        self.stem = nn.Sequential(
            ConvNorm(3, w, stride=2, bias=True), ConvNorm(w, w, stride=2, bias=True)
        )
        self.layer1 = stage(BasicBlock, w, w, blocks=shallow)
        self.layer2 = stage(BasicBlock, w, 2 * w, blocks=shallow, stride=2)
        # Integral path
        self.layer3 = stage(BasicBlock, 2 * w, 4 * w, blocks=deep, stride=2)
        self.layer4 = stage(BasicBlock, 4 * w, 8 * w, blocks=deep, stride=2)
        self.layer5 = stage(Bottleneck, 8 * w, 8 * w, 16 * w, blocks=2, stride=2, relu=False)
        self.pooling = DAPPM(16 * w, 112, 4 * w) if large else PAPPM(16 * w, 96, 4 * w)
        # Proportional path
        self.detail3 = stage(BasicBlock, 2 * w, 2 * w, blocks=shallow, last_relu=False)
        self.detail4 = stage(BasicBlock, 2 * w, 2 * w, blocks=shallow, last_relu=False)
        self.detail5 = Bottleneck(2 * w, 2 * w, 4 * w, relu=False)
        self.guide3 = PixelAttention(4 * w, 2 * w)
        self.guide4 = PixelAttention(8 * w, 2 * w)
        # Derivative path
        narrow = 2 * w if large else w
        self.boundary3 = BasicBlock(2 * w, narrow, relu=False)
        self.boundary4 = (
            BasicBlock(2 * w, 2 * w, relu=False) if large else Bottleneck(w, w, 2 * w, relu=False)
        )
        self.boundary5 = Bottleneck(2 * w, 2 * w, 4 * w, relu=False)
        self.difference3 = ConvNorm(4 * w, narrow, relu=False)
        self.difference4 = ConvNorm(8 * w, 2 * w, relu=False)
        self.relu = nn.ReLU()
        self.fusion = BoundaryFusion(4 * w) if large else LightBoundaryFusion(4 * w)

    def forward(self, image: Tensor) -> Features:
        """(B, 3, H, W) → h (B, 4w, H/8, W/8), x_semantic (B, 16w, H/64, W/64)."""
        x = self.layer2(self.layer1(self.stem(image)))
        p, d = self.detail3(x), self.boundary3(x)

        i = self.layer3(x)
        p = auxiliary = self.relu(self.guide3(p, i))
        d = self.relu(d + upsample_to(self.difference3(i), like=d))

        i = self.layer4(i)
        p = self.relu(self.guide4(self.detail4(p), i))
        d = self.boundary4(d)
        d = boundary = self.relu(d + upsample_to(self.difference4(i), like=d))

        x_semantic = self.layer5(i)
        p, d = self.detail5(p), self.boundary5(d)
        h = self.fusion(p, upsample_to(self.pooling(x_semantic), like=p), d)
        return Features(h, x_semantic, auxiliary=auxiliary, boundary=boundary)


class PixelAttention(nn.Module):
    """Pag: P takes as much of I in each cell as the two agree there."""

    def __init__(self, integral_channels: int, channels: int) -> None:
        super().__init__()
        self.compress = ConvNorm(integral_channels, channels, 1, relu=False)
        self.query = ConvNorm(channels, channels // 2, 1, relu=False)
        self.key = ConvNorm(channels, channels // 2, 1, relu=False)

    def forward(self, p: Tensor, i: Tensor) -> Tensor:
        """Shape of p (B, channels, h, w); i is coarser."""
        i = self.compress(i)
        query = upsample_to(self.query(i), like=p)
        agreement = torch.sigmoid((self.key(p) * query).sum(dim=1, keepdim=True))
        return (1 - agreement) * p + agreement * upsample_to(i, like=p)


class PAPPM(nn.Module):
    """Parallel aggregation pyramid pooling: DAPPM with its scales refined side by side."""

    def __init__(self, in_channels: int, branch_channels: int, channels: int) -> None:
        super().__init__()
        pooled = len(DAPPM.POOLS) + 1
        self.unpooled = NormConv(in_channels, branch_channels)
        self.scales = nn.ModuleList(NormConv(in_channels, branch_channels) for _ in range(pooled))
        self.refine = NormConv(
            pooled * branch_channels, pooled * branch_channels, 3, groups=pooled
        )
        self.compress = NormConv((pooled + 1) * branch_channels, channels)
        self.shortcut = NormConv(in_channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, h, w) → (B, channels, h, w)."""
        unpooled = self.unpooled(x)
        scales = [
            upsample_to(scale(pooled), like=x) + unpooled
            for scale, pooled in zip(self.scales, pyramid(x, DAPPM.POOLS), strict=True)
        ]
        refined = self.refine(torch.cat(scales, dim=1))
        return self.compress(torch.cat([unpooled, refined], dim=1)) + self.shortcut(x)


class BoundaryFusion(nn.Module):
    """Bag: detail where D sees a boundary, context elsewhere."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = NormConv(channels, channels, 3)

    def forward(self, p: Tensor, i: Tensor, d: Tensor) -> Tensor:
        """All (B, channels, h, w)."""
        edge = torch.sigmoid(d)
        return self.conv(edge * p + (1 - edge) * i)


class LightBoundaryFusion(nn.Module):
    """Light-Bag: the same with 1×1 convolutions, and each path kept whole in one summand."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.detail = ConvNorm(channels, channels, 1, relu=False)
        self.context = ConvNorm(channels, channels, 1, relu=False)

    def forward(self, p: Tensor, i: Tensor, d: Tensor) -> Tensor:
        """All (B, channels, h, w)."""
        edge = torch.sigmoid(d)
        return self.detail(p + (1 - edge) * i) + self.context(i + edge * p)
