"""A cache folder of the test run's own, where kernels run, and a tiny network that is awake."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tag_perception.core import checkpoint
from tag_perception.core.network import PRESETS, Network, build_network


@pytest.fixture(autouse=True, scope='session')
def cache_home(tmp_path_factory):
    path = tmp_path_factory.mktemp('cache')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('XDG_CACHE_HOME', str(path))
        yield path


@pytest.fixture
def device() -> str:
    """Kernels run on a GPU, or on the CPU in Triton's interpreter."""
    pytest.importorskip('triton')
    if torch.cuda.is_available():
        return 'cuda'
    if 'TRITON_INTERPRET' not in os.environ:
        pytest.skip('needs a CUDA device; kernels/test_interpreter.py runs it without one')
    return 'cpu'


@pytest.fixture
def dtype(device: str) -> torch.dtype:
    """Half precision where there are tensor cores, and exact where there are none."""
    return torch.float16 if device == 'cuda' else torch.float32


@pytest.fixture
def tolerance(device: str) -> float:
    """Of the norm of the difference, by that of the result."""
    return 1.5e-3 if device == 'cuda' else 1e-6


def awake_network(preset: str, seed: int = 0, **changes: Any) -> Network:
    """A network as after training: statistics in its batch norms, and heads that differ."""
    torch.manual_seed(seed)
    network = build_network(
        replace(PRESETS[preset], **{'input_size': (64, 128), **changes})
    ).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1, 0.1)
            nn.init.normal_(module.bias, 0, 0.1)
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.7, 1.5)
    if 'detection3d' in network.heads:
        for name, output in network.heads['detection3d'].outputs.items():
            nn.init.normal_(output.weight, std=0.1 if name in ('heatmap', 'heading') else 0.01)
    return network


def save(network: Network, path: Path) -> str:
    checkpoint.save(path, network, network.config, {'step': 12})
    return str(path)
