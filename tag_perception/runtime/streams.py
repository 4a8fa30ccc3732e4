"""Streams of a GPU, used again: what cuBLAS needs to work on a stream it keeps for good."""

from __future__ import annotations

import torch

_idle: dict[str, list[torch.cuda.Stream]] = {}
"""Of each device."""


def borrow(device: torch.device) -> torch.cuda.Stream:
    """A stream that nobody else uses until it is given back."""
    idle = _idle.get(str(device))
    return idle.pop() if idle else torch.cuda.Stream(device)


def give_back(device: torch.device, stream: torch.cuda.Stream) -> None:
    """The stream has no work left, and no graph of what was captured on it is replayed again."""
    _idle.setdefault(str(device), []).append(stream)
