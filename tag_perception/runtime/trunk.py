"""What has to be computed in every cell, and what only in the cells of peaks.

Of the detection head's nine sub-heads only the heatmap is needed everywhere. The other eight, a
sixth of the network, are asked in the 50 cells in which boxes are decoded: same weights, same
result.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from tag_perception.core.backbones.blocks import ConvNorm
from tag_perception.core.network import Network
from tag_perception.core.tasks.detection3d import AFTER_HEATMAP, SUBHEADS, Head


class Trunk(nn.Module):
    """A network in evaluation mode, with batch norm folded, up to the outputs named in `names`.

    The outputs are those of the network; with `sparse`, `detection3d` gives way to `heatmap`
    (B, 6, h, w) and `features` (B, C, h, w), from which `peak_head` takes the rest.
    """

    def __init__(self, network: Network, sparse: bool = True) -> None:
        super().__init__()
        folded = fold_batch_norm(network)
        self.config, self.stride = folded.config, folded.stride
        self.backbone, self.attention = folded.backbone, folded.attention
        self.heads = folded.heads
        self.names: tuple[str, ...] = folded.config.tasks
        self.heatmap: nn.Module | None = None
        self.peak_head: PeakHead | None = None
        if sparse and 'detection3d' in self.names:
            head = self.heads.pop('detection3d')
            assert isinstance(head, Head)
            self.heatmap, self.peak_head = _heatmap(head), PeakHead(head)
            self.names = ('heatmap', 'features', *self.heads)
        self.eval()

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Outputs in the order of `names` of a normalised image (B, 3, H, W)."""
        features = self.backbone(image)
        h_t = self.attention(features.h, features.x_semantic, features.x_detail)
        outputs = tuple(head(h_t[task]) for task, head in self.heads.items())
        if self.heatmap is None:
            return outputs
        h_det = h_t['detection3d']
        return (self.heatmap(h_det), h_det, *outputs)


class PeakHead(nn.Module):
    """The sub-heads after the heatmap in single cells: two matrix products."""

    def __init__(self, head: Head) -> None:
        super().__init__()
        width = head.hidden.out_channels // len(SUBHEADS)
        weights = dict(head.named_parameters())
        # A 3×3 convolution of one cell is a product with its surroundings, laid out as 9 · C.
        self.hidden = _linear(
            weights['hidden.weight'][width:].permute(0, 2, 3, 1).flatten(1),
            weights['hidden.bias'][width:],
        )
        # Each sub-head reads its own hidden channels only.
        self.outputs = _linear(
            torch.block_diag(
                *(weights[f'outputs.{name}.weight'].flatten(1) for name in AFTER_HEATMAP)
            ),
            torch.cat([weights[f'outputs.{name}.bias'] for name in AFTER_HEATMAP]),
        )

    def forward(self, features: Tensor, cell: Tensor) -> Tensor:
        """(B, K, 37) at flat cells (B, K) of features (B, C, h, w), in the order of SUBHEADS."""
        return self.outputs(torch.relu(self.hidden(_patches(features, cell))))


def fold_batch_norm(network: Network) -> Network:
    """Copy for inference with each batch norm multiplied into the convolution before it."""
    folded = copy.deepcopy(network).eval().requires_grad_(False)
    for block in folded.modules():
        if isinstance(block, ConvNorm):
            block.conv = fuse_conv_bn_eval(block.conv, block.norm)
            block.norm = nn.Identity()  # type: ignore[assignment]
    return folded


def _heatmap(head: Head) -> nn.Sequential:
    """The heatmap's share of the detection head."""
    width = head.hidden.out_channels // len(SUBHEADS)
    hidden = nn.Conv2d(head.hidden.in_channels, width, 3, padding=1, device='meta')
    for name, value in head.hidden.named_parameters():
        setattr(hidden, name, _frozen(value[:width]))
    return nn.Sequential(hidden, nn.ReLU(inplace=True), head.outputs['heatmap'])


def _patches(features: Tensor, cell: Tensor) -> Tensor:
    """(B, K, 9 C): the 3×3 surroundings of flat cells (B, K), zero beyond the border."""
    height, width = features.shape[-2:]
    around = torch.arange(-1, 2, device=cell.device)
    y = (cell // width)[..., None, None] + around[:, None]  # (B, K, 3, 1)
    x = (cell % width)[..., None, None] + around  # (B, K, 1, 3)
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)  # (B, K, 3, 3)
    index = (y.clamp(0, height - 1) * width + x.clamp(0, width - 1)).flatten(1)  # (B, 9 K)
    columns = features.flatten(2).gather(2, index[:, None].expand(-1, features.shape[1], -1))
    patches = columns.transpose(1, 2).unflatten(1, (cell.shape[1], 9))  # (B, K, 9, C)
    return (patches * inside.flatten(2)[..., None]).flatten(2)


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], device='meta')
    linear.weight, linear.bias = _frozen(weight), _frozen(bias)
    return linear


def _frozen(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value.detach().clone(), requires_grad=False)
