"""DLA-34 with its iterative up-sampling (Yu et al. 2018), as MonoDLE uses it.

Two 1×1 projections of the published code, in levels 3 and 4, are left out: their result is never
read (0.04 M parameters, 0.5 GMACs at 1024×2048).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tag_perception.core.backbones.backbone import Backbone, Features
from tag_perception.core.backbones.blocks import ConvNorm


class DLA34(Backbone):
    """h has 64 channels at 1/4 of the image; x_semantic has 512 at 1/32."""

    stride = 4
    channels = 64
    semantic_channels = 512

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(ConvNorm(3, 16, 7), ConvNorm(16, 16), ConvNorm(16, 32, stride=2))
        self.level2 = Tree(1, 32, 64, level_root=False)
        self.level3 = Tree(2, 64, 128)
        self.level4 = Tree(2, 128, 256)
        self.level5 = Tree(1, 256, 512)
        self.up = DLAUp((64, 128, 256, 512))

    def forward(self, image: Tensor) -> Features:
        """(B, 3, H, W) → h (B, 64, H/4, W/4), x_semantic (B, 512, H/32, W/32)."""
        levels = [self.stem(image)]
        for level in (self.level2, self.level3, self.level4, self.level5):
            levels.append(level(levels[-1]))
        return Features(self.up(levels[1:]), levels[-1])


class Block(nn.Module):
    """3×3, 3×3 and a residual from outside; `project` makes it from the (pooled) input."""

    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = ConvNorm(in_channels, channels, 3, stride)
        self.conv2 = ConvNorm(channels, channels, 3, relu=False)
        self.project = (
            nn.Identity()
            if in_channels == channels
            else ConvNorm(in_channels, channels, 1, relu=False)
        )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) → (B, channels, H/stride, W/stride)."""
        residual = self.project(_pool(x, self.stride))
        return self.relu(self.conv2(self.conv1(x)) + residual)


class Tree(nn.Module):
    """Hierarchical deep aggregation: a binary tree of blocks whose root sees all subtrees.

    `passed_channels` counts what the parents hand down to the root besides the two children;
    `level_root` adds the pooled input of the whole level.
    """

    def __init__(
        self,
        depth: int,
        in_channels: int,
        channels: int,
        stride: int = 2,
        level_root: bool = True,
        passed_channels: int = 0,
    ) -> None:
        super().__init__()
        self.stride, self.level_root = stride, level_root
        passed_channels += in_channels if level_root else 0
        self.left: nn.Module
        self.right: nn.Module
        self.root: ConvNorm | None = None
        if depth == 1:
            self.left = Block(in_channels, channels, stride)
            self.right = Block(channels, channels)
            self.root = ConvNorm(2 * channels + passed_channels, channels, 1)
        else:
            self.left = Tree(depth - 1, in_channels, channels, stride, level_root=False)
            self.right = Tree(
                depth - 1,
                channels,
                channels,
                stride=1,
                level_root=False,
                passed_channels=passed_channels + channels,
            )

    def forward(self, x: Tensor, passed: Sequence[Tensor] = ()) -> Tensor:
        """(B, in_channels, H, W) → (B, channels, H/stride, W/stride)."""
        if self.level_root:
            passed = [*passed, _pool(x, self.stride)]
        left = self.left(x)
        if self.root is None:
            return self.right(left, [*passed, left])
        return self.root(torch.cat([self.right(left), left, *passed], dim=1))


class DLAUp(nn.Module):
    """Climbs from the deepest level to the shallowest, merging all levels below at each step."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        # Step i merges everything deeper into level i; the deepest step comes first.
        self.steps = nn.ModuleList(
            IDAUp(channels[i + 1], channels[i], len(channels) - 1 - i)
            for i in reversed(range(len(channels) - 1))
        )

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Shape of levels[0]; the list goes from shallow to deep, each half the size before."""
        deeper = [levels[-1]]
        for step, level in zip(self.steps, reversed(levels[:-1]), strict=True):
            deeper = step(level, deeper)
        return deeper[-1]


class IDAUp(nn.Module):
    """Iterative deep aggregation: enlarges `count` deeper maps and merges them one by one."""

    def __init__(self, in_channels: int, channels: int, count: int) -> None:
        super().__init__()
        self.project = nn.ModuleList(ConvNorm(in_channels, channels) for _ in range(count))
        self.up = nn.ModuleList(_bilinear_deconvolution(channels) for _ in range(count))
        self.node = nn.ModuleList(ConvNorm(2 * channels, channels) for _ in range(count))

    def forward(self, level: Tensor, deeper: Sequence[Tensor]) -> list[Tensor]:
        """The level itself and every merged map, all of the level's shape."""
        merged = [level]
        for project, up, node, x in zip(self.project, self.up, self.node, deeper, strict=True):
            merged.append(node(torch.cat([merged[-1], up(project(x))], dim=1)))
        return merged


def _pool(x: Tensor, stride: int) -> Tensor:
    return x if stride == 1 else F.max_pool2d(x, stride)


def _bilinear_deconvolution(channels: int) -> nn.ConvTranspose2d:
    """Learned 2× enlargement per channel that starts as bilinear interpolation."""
    up = nn.ConvTranspose2d(channels, channels, 4, 2, padding=1, groups=channels, bias=False)
    ramp = (0.25, 0.75, 0.75, 0.25)
    kernel = torch.tensor([[a * b for b in ramp] for a in ramp])
    up.weight = nn.Parameter(kernel.repeat(channels, 1, 1, 1))
    return up
