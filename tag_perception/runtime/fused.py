"""A trunk for CUDA whose layers are few kernels, and whose two pathways run at the same time.

What torch computes as convolution, bias, shortcut and ReLU, each a pass over the memory, is one
kernel here. Results differ from those of the trunk by the rounding of half precision only.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tag_perception.core.attention import ChannelAttention, TaskAttention
from tag_perception.core.backbones.blocks import BasicBlock, Bottleneck, ConvNorm
from tag_perception.core.backbones.tag import Node, TwoPathway
from tag_perception.runtime.branch import Branch
from tag_perception.runtime.kernels.convolution import (
    FEW_CHANNELS,
    SMALLEST,
    Activation,
    Convolution,
    ImageConvolution,
    supports,
)
from tag_perception.runtime.kernels.maps import attend, concat_upsampled
from tag_perception.runtime.trunk import Trunk


class FusedTrunk(nn.Module):
    """The outputs of a `Trunk`, in its order, in half precision."""

    def __init__(self, trunk: Trunk, branch: Branch) -> None:
        """Takes the layers of `trunk`, which cannot be used any more."""
        super().__init__()
        self._branch = branch
        self.features = _features(trunk, branch)
        self.heatmap = None if trunk.heatmap is None else fuse(trunk.heatmap)
        self.heads = nn.ModuleDict({task: fuse(head) for task, head in trunk.heads.items()})

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """As `Trunk.forward`, but all after `features` is left to the branch.

        Boxes take longest from here on, so that their heatmap comes first.
        """
        h_t = self.features(image)
        if self.heatmap is None:
            return tuple(head(h_t[task]) for task, head in self.heads.items())
        h_det = h_t['detection3d']
        heatmap = self.heatmap(h_det)
        with self._branch.beside(h_t):
            others = [head(h_t[task]) for task, head in self.heads.items()]
        return (heatmap, h_det, *others)


class TwoPathways(nn.Module):
    """TwoPathway and TaskAttention with all their parts: an image becomes one h_t per task."""

    def __init__(self, backbone: nn.Module, attention: TaskAttention, branch: Branch) -> None:
        super().__init__()
        assert isinstance(backbone, TwoPathway)
        assert backbone.g is not None
        assert attention.S_ch is not None
        assert isinstance(attention.S_sp, nn.Conv2d)
        self.stem, self.layer1 = fuse(backbone.stem), fuse(backbone.layer1)
        self.layer2, self.layer3 = fuse(backbone.layer2), fuse(backbone.layer3)
        self.layer4, self.layer5 = fuse(backbone.layer4), fuse(backbone.layer5)
        self.context = fuse(backbone.context)
        self.detail, self.g = fuse(backbone.detail), fuse(backbone.g)
        self.tasks = attention.tasks
        self.S_ch = ChannelAttentions(attention.S_ch)
        self.S_sp = _convolution(attention.S_sp, 'sigmoid')
        self._branch = branch

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """As backbone and attention, in the same symbols."""
        x2 = self.layer2(self.layer1(self.stem(image)))
        with self._branch.beside(x2):
            x_detail = self.detail(x2)
            detail, beta = self.g(x_detail), self.S_sp(x_detail)
        x3 = self.layer3(x2)
        x4 = self.layer4(x3)
        x_semantic = self.layer5(x4)
        with self._branch.beside(x_semantic):
            alpha = self.S_ch(x_semantic)
        x_agg = self.context([x3, x4, x_semantic])
        self._branch.join()
        return dict(zip(self.tasks, attend(x_agg, detail, alpha, beta), strict=True))


class ChannelAttentions(nn.Module):
    """alpha of all tasks at once, from one pooled feature."""

    def __init__(self, attentions: nn.ModuleDict) -> None:
        super().__init__()
        each = [a for a in attentions.values() if isinstance(a, ChannelAttention)]
        first, second = [a.fc1 for a in each], [a.fc2 for a in each]
        self.weight1 = _stacked([layer.weight.T for layer in first])
        self.bias1 = _stacked([layer.bias[None] for layer in first])
        self.weight2 = _stacked([layer.weight.T for layer in second])
        self.bias2 = _stacked([layer.bias[None] for layer in second])

    def forward(self, x_semantic: Tensor) -> Tensor:
        """(T, B, C) of (B, semantic_channels, h, w)."""
        pooled = x_semantic.mean(dim=(2, 3)).expand(len(self.weight1), -1, -1)
        hidden = torch.relu(torch.baddbmm(self.bias1, pooled, self.weight1))
        return torch.sigmoid(torch.baddbmm(self.bias2, hidden, self.weight2))


class Block(nn.Module):
    """BasicBlock or Bottleneck: the last convolution adds the shortcut."""

    def __init__(self, block: BasicBlock | Bottleneck) -> None:
        super().__init__()
        layers = [block.conv1, block.conv2]
        if isinstance(block, Bottleneck):
            layers.append(block.conv3)
        last: Activation = 'relu' if isinstance(block.relu, nn.ReLU) else 'none'
        self.first = nn.Sequential(*(fuse(layer) for layer in layers[:-1]))
        self.last = _convolution(layers[-1].conv, last)
        self.shortcut = fuse(block.shortcut)

    def forward(self, x: Tensor) -> Tensor:
        """As the block."""
        return self.last(self.first(x), self.shortcut(x))


class FusedNode(nn.Module):
    """Eq. 1, with enlarging and concatenation in one kernel."""

    def __init__(self, node: Node) -> None:
        super().__init__()
        self.P1, self.P2 = fuse(node.P1), fuse(node.P2)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """As `Node.forward`."""
        return self.P2(concat_upsampled(self.P1(x), y))


def fuse(module: nn.Module) -> nn.Module:
    """The same with our kernels, as far as they reach; batch norm is folded already."""
    if isinstance(module, ConvNorm):
        relu = isinstance(module.relu, nn.ReLU)
        if isinstance(module.norm, nn.Identity) and _reachable(module.conv):
            return _convolution(module.conv, 'relu' if relu else 'none')
        return module
    if isinstance(module, (BasicBlock, Bottleneck)):
        return Block(module) if _whole(module) else module
    if isinstance(module, Node):
        return FusedNode(module)
    if isinstance(module, nn.Conv2d):
        return _convolution(module, 'none') if _reachable(module) else module
    if isinstance(module, nn.Sequential):
        return nn.Sequential(*_fused_row(module))
    for name, child in module.named_children():
        setattr(module, name, fuse(child))
    return module


def _fused_row(layers: nn.Sequential) -> list[nn.Module]:
    """A convolution takes in the ReLU behind it."""
    row: list[nn.Module] = []
    for layer in layers:
        before = row[-1] if row else None
        if isinstance(layer, nn.ReLU) and isinstance(before, (Convolution, ImageConvolution)):
            before.activation = 'relu'
        else:
            row.append(fuse(layer))
    return row


def _features(trunk: Trunk, branch: Branch) -> nn.Module:
    """From an image to h_t."""
    backbone, attention = trunk.backbone, trunk.attention
    single = isinstance(attention.S_sp, nn.Conv2d) and attention.S_sp.out_channels == 1
    whole = isinstance(backbone, TwoPathway) and backbone.g is not None
    if whole and attention.S_ch is not None and single:
        return TwoPathways(backbone, attention, branch)
    return _Features(fuse(backbone), attention)


class _Features(nn.Module):
    """Any backbone, and attention as far as there is any."""

    def __init__(self, backbone: nn.Module, attention: TaskAttention) -> None:
        super().__init__()
        self.backbone, self.attention = backbone, attention

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        features = self.backbone(image)
        return self.attention(features.h, features.x_semantic, features.x_detail)


def _whole(block: BasicBlock | Bottleneck) -> bool:
    """Whether our kernels reach all of a block, and its sum needs no more channels than it has."""
    convolutions = [layer for layer in block.modules() if isinstance(layer, nn.Conv2d)]
    return all(supports(c) and c.out_channels % SMALLEST == 0 for c in convolutions)


def _reachable(convolution: nn.Conv2d) -> bool:
    return convolution.in_channels == FEW_CHANNELS or supports(convolution)


def _convolution(convolution: nn.Conv2d, activation: Activation) -> nn.Module:
    make: Callable[[nn.Conv2d, Activation], nn.Module] = Convolution
    if convolution.in_channels == FEW_CHANNELS:
        make = ImageConvolution
    return make(convolution, activation)


def _stacked(values: list[Tensor]) -> nn.Parameter:
    return nn.Parameter(torch.stack(values).detach().contiguous(), requires_grad=False)
