"""ResNet-50 (He et al. 2016) with the aggregation idea of the paper's own backbone.

The paper does not say how it turns ResNet-50 into a dense network. Two nodes of Eq. 1 climb from
1/32 to 1/8; this fits its parameters and GFLOPs to 2 %.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from tag_perception.core.backbones.backbone import Backbone, Features
from tag_perception.core.backbones.blocks import Bottleneck, ConvNorm, stage
from tag_perception.core.backbones.tag import Node


class ResNet50(Backbone):
    """h has 256 channels at 1/8 of the image; x_semantic has 2048 at 1/32."""

    stride = 8
    channels = 256
    semantic_channels = 2048

    def __init__(self) -> None:
        super().__init__()
        self.trunk = Trunk()
        self.lateral2 = ConvNorm(512, 256, 1)
        self.lateral3 = ConvNorm(1024, 512, 1)
        self.node3 = Node(2048, 512)
        self.node2 = Node(512, 256)

    def forward(self, image: Tensor) -> Features:
        """(B, 3, H, W) → h (B, 256, H/8, W/8), x_semantic (B, 2048, H/32, W/32)."""
        x2 = self.trunk.to_layer2(image)  # (B, 512, H/8, W/8)
        x3 = self.trunk.layer3(x2)  # (B, 1024, H/16, W/16)
        x4 = self.trunk.layer4(x3)  # (B, 2048, H/32, W/32)
        h = self.node2(self.node3(x4, self.lateral3(x3)), self.lateral2(x2))
        return Features(h, x4)


class Trunk(nn.Module):
    """The four layers of bottlenecks behind a 7×7 stem, or behind three 3×3 convolutions.

    `dilated` keeps layer 4 at 1/16 with dilation 2 instead of going to 1/32.
    """

    def __init__(self, deep_stem: bool = False, dilated: bool = False) -> None:
        super().__init__()
        self.stem = (
            nn.Sequential(ConvNorm(3, 32, stride=2), ConvNorm(32, 32), ConvNorm(32, 64))
            if deep_stem
            else ConvNorm(3, 64, 7, stride=2)
        )
        self.layer1 = stage(Bottleneck, 64, 64, 256, blocks=3)
        self.layer2 = stage(Bottleneck, 256, 128, 512, blocks=4, stride=2)
        self.layer3 = stage(Bottleneck, 512, 256, 1024, blocks=6, stride=2)
        self.layer4 = (
            stage(Bottleneck, 1024, 512, 2048, blocks=3, dilation=2)
            if dilated
            else stage(Bottleneck, 1024, 512, 2048, blocks=3, stride=2)
        )

    def to_layer2(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, 512, H/8, W/8)."""
        x = F.max_pool2d(self.stem(image), 3, stride=2, padding=1)
        return self.layer2(self.layer1(x))

    def to_layer4(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, 2048, H/32, W/32), or H/16, W/16 if dilated."""
        return self.layer4(self.layer3(self.to_layer2(image)))
