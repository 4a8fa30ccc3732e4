"""ICNet: three image sizes through one ResNet-50, merged from coarse to fine (Zhao et al. 2018).

The paper's 44.4 M parameters leave no room for convolutions inside the pyramid pooling, so the
pooled maps are only summed.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tag_perception.core.backbones.backbone import Backbone, Features
from tag_perception.core.backbones.blocks import ConvNorm, upsample_to
from tag_perception.core.backbones.resnet import Trunk


class ICNet(Backbone):
    """h has 128 channels at 1/4 of the image; x_semantic has 2048 at 1/64."""

    stride = 4
    channels = 128
    semantic_channels = 2048

    def __init__(self) -> None:
        super().__init__()
        self.trunk = Trunk(deep_stem=True, dilated=True)
        self.pooling = SummedPyramidPooling(2048, 512)
        self.coarse = ConvNorm(512, 256, 1)
        self.medium = ConvNorm(512, 256, 1)
        self.fine = nn.Sequential(
            ConvNorm(3, 32, stride=2), ConvNorm(32, 32, stride=2), ConvNorm(32, 64, stride=2)
        )
        self.fuse_medium = CascadeFusion(256, 256, 128)
        self.fuse_fine = CascadeFusion(128, 64, 128)

    def forward(self, image: Tensor) -> Features:
        """(B, 3, H, W) → h (B, 128, H/4, W/4), x_semantic (B, 2048, H/64, W/64)."""
        half, quarter = _shrink(image, 2), _shrink(image, 4)
        x_semantic = self.trunk.to_layer4(quarter)
        coarse = self.coarse(self.pooling(x_semantic))  # (B, 256, H/64, W/64)
        medium = self.medium(self.trunk.to_layer2(half))  # (B, 256, H/16, W/16)
        fine = self.fine(image)  # (B, 64, H/8, W/8)
        x = self.fuse_fine(self.fuse_medium(coarse, medium), fine)  # (B, 128, H/8, W/8)
        h = F.interpolate(x, scale_factor=2.0, mode='bilinear', align_corners=False)
        return Features(h, x_semantic)


class CascadeFusion(nn.Module):
    """CFF: the coarser map, enlarged and smoothed by a dilated 3×3, plus the finer one."""

    def __init__(self, coarse_channels: int, fine_channels: int, channels: int) -> None:
        super().__init__()
        self.coarse = ConvNorm(coarse_channels, channels, 3, dilation=2, relu=False)
        self.fine = ConvNorm(fine_channels, channels, 1, relu=False)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """(B, channels, h, w) of the finer map's size."""
        return self.relu(self.coarse(upsample_to(coarse, like=fine)) + self.fine(fine))


class SummedPyramidPooling(nn.Module):
    """x beside the sum of its pooled versions, through one 3×3 convolution."""

    BINS = (1, 2, 3, 6)

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.fuse = ConvNorm(2 * in_channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, h, w) → (B, channels, h, w)."""
        pooled = [upsample_to(F.adaptive_avg_pool2d(x, bins), like=x) for bins in self.BINS]
        return self.fuse(torch.cat([x, torch.stack(pooled).sum(dim=0)], dim=1))


def _shrink(image: Tensor, factor: int) -> Tensor:
    size = [side // factor for side in image.shape[-2:]]
    return F.interpolate(image, size=size, mode='bilinear', align_corners=False)
