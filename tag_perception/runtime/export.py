"""Networks as files for other runtimes."""

from __future__ import annotations

from pathlib import Path

import torch

from tag_perception.config import InputError
from tag_perception.core import checkpoint
from tag_perception.core.network import PRESETS, Network, build_network
from tag_perception.runtime.onnx import to_onnx
from tag_perception.runtime.trunk import fold_batch_norm


def export(source: str, output: str | Path, batch: int = 1) -> tuple[str, ...]:
    """Write a checkpoint, or a preset with random weights, as ONNX; names of the outputs.

    The file takes `image` (batch, 3, H, W), float32, normalised as by `core.preprocess`, and
    returns the network's raw outputs by task, for `core.tasks` to decode. Raises InputError.
    """
    if batch < 1:
        raise InputError(f'batch {batch}: at least one image')
    network = load(source)
    content = to_onnx(fold_batch_norm(network), network.config.tasks, batch)
    try:
        Path(output).write_bytes(content)
    except OSError as error:
        raise InputError(f'{output}: cannot write the network: {error.strerror}') from error
    return network.config.tasks


def load(source: str) -> Network:
    """The network of a checkpoint file, or of a preset with random weights."""
    if source not in PRESETS:
        return checkpoint.load(source).network
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_network(PRESETS[source])
