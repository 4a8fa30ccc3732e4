"""How fast a network could be on this device: the larger of what computing and copying take.

Both rates are measured: a large matrix product and a large copy. The bytes are those of every
convolution's input, weights and output, each moved once, as if nothing else were ever stored.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tag_perception.core.network import NetworkConfig, build_network
from tag_perception.runtime.trunk import Trunk


@dataclass(frozen=True)
class Rates:
    """What a device reaches."""

    macs_per_s: float
    """Multiply-accumulates of a square matrix product."""
    bytes_per_s: float
    """Read plus written by a copy."""

    def or_better(self, device: torch.device, dtype: torch.dtype) -> Rates:
        """The same measured again, where that was less disturbed."""
        again = measure_rates(device, dtype)
        return Rates(
            max(self.macs_per_s, again.macs_per_s), max(self.bytes_per_s, again.bytes_per_s)
        )


@dataclass(frozen=True)
class Work:
    """What one image costs a trunk, in convolutions and fully connected layers."""

    macs: int
    numbers: int
    """Inputs, weights and outputs."""

    def roofline_ms(self, rates: Rates, bytes_per_number: int) -> float:
        """The least time that this takes."""
        moving_s = self.numbers * bytes_per_number / rates.bytes_per_s
        return max(self.macs / rates.macs_per_s, moving_s) * 1e3


def measure_rates(device: torch.device, dtype: torch.dtype) -> Rates:
    """The best of several tries, half a second on a CPU."""
    side, numbers = (8192, 2**28) if device.type == 'cuda' else (1536, 2**24)
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    source = torch.zeros(numbers, device=device, dtype=dtype)
    target = torch.zeros_like(source)
    product_s = _shortest(lambda: torch.matmul(a, b), device)
    copy_s = _shortest(lambda: target.copy_(source), device)
    return Rates(side**3 / product_s, 2 * numbers * source.element_size() / copy_s)


def measure_work(config: NetworkConfig, sparse: bool = True) -> Work:
    """Of one image of the configuration's size, counted on the meta device."""
    with torch.device('meta'):
        trunk = Trunk(build_network(config), sparse)
        image = torch.zeros(1, 3, *config.input_size)
    counts = [0, 0]

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        weight = next(module.parameters())
        counts[0] += output.numel() * weight[0].numel()
        counts[1] += inputs[0].numel() + weight.numel() + output.numel()

    for module in trunk.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(count)
    trunk(image)
    return Work(*counts)


def _shortest(function: Callable[[], object], device: torch.device, tries: int = 7) -> float:
    seconds = []
    for _ in range(tries + 1):
        start = time.perf_counter()
        function()
        if device.type == 'cuda':
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])  # the first one warms up
