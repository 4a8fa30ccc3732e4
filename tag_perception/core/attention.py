"""TAG, the task-adaptive attention generator (paper section III-B), in the paper's symbols."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn


class TaskAttention(nn.Module):
    """Turns the task-generic feature h into one feature h_t per task t.

    Without either attention every task gets h itself, which is plain hard parameter sharing.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        channels: int,
        semantic_channels: int,
        detail_channels: int | None,
        channel: bool = True,
        spatial: bool = True,
        spatial_kernel: Literal['dilated', 'pointwise'] = 'dilated',
    ) -> None:
        super().__init__()
        self.tasks = tuple(tasks)
        self.S_ch: nn.ModuleDict | None = None
        self.S_sp: nn.Module | None = None
        if channel:
            self.S_ch = nn.ModuleDict(
                {t: ChannelAttention(semantic_channels, channels) for t in self.tasks}
            )
        if spatial:
            if detail_channels is None:
                raise ValueError('spatial attention needs a backbone with a detail path')
            self.S_sp = _spatial_attention(detail_channels, channels, spatial_kernel)

    def forward(self, h: Tensor, x_semantic: Tensor, x_detail: Tensor | None) -> dict[str, Tensor]:
        """h_t = alpha_t · h + beta for every task, each of h's shape (B, C, H/8, W/8)."""
        h_t = dict.fromkeys(self.tasks, h)
        if self.S_ch is not None:
            alpha = {t: torch.sigmoid(S(x_semantic)) for t, S in self.S_ch.items()}  # Eq. 3
            h_t = {t: alpha[t] * h for t in self.tasks}
        if self.S_sp is not None:
            beta = torch.sigmoid(self.S_sp(x_detail))  # Eq. 3, shared by all tasks
            h_t = {t: h_t[t] + beta for t in self.tasks}  # Eq. 4
        return h_t


class ChannelAttention(nn.Module):
    """S_ch of one task: global average pooling, then two fully connected layers."""

    def __init__(self, semantic_channels: int, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(semantic_channels, channels)
        self.fc2 = nn.Linear(channels, channels)

    def forward(self, x_semantic: Tensor) -> Tensor:
        """(B, semantic_channels, h, w) → (B, channels, 1, 1) logits."""
        pooled = x_semantic.mean(dim=(2, 3))
        return self.fc2(torch.relu(self.fc1(pooled)))[:, :, None, None]


def _spatial_attention(detail_channels: int, channels: int, kernel: str) -> nn.Conv2d:
    """S_sp: one dilated 3×3 convolution to a single map, or a 1×1 to a map per channel."""
    if kernel == 'dilated':
        return nn.Conv2d(detail_channels, 1, 3, padding=2, dilation=2)
    return nn.Conv2d(detail_channels, channels, 1)
