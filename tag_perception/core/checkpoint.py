"""Checkpoints: one safetensors file that rebuilds its network without being told anything.

The header holds the NetworkConfig and free metadata as JSON, so loading executes no code, and the
size of every tensor is known, and checked, before memory is taken.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from tag_perception.config import InputError, from_dict, to_dict
from tag_perception.core.network import Network, NetworkConfig, build_network

FORMAT = 'tag_perception 1'
MAX_HEADER_BYTES = 2**24
"""Fifty times what the largest network needs; longer headers are not read."""


class CheckpointError(InputError):
    """A checkpoint is missing, damaged or not one of ours."""


@dataclass(frozen=True)
class Checkpoint:
    """A network with its weights and what was stored beside them."""

    network: Network
    config: NetworkConfig
    metadata: dict[str, Any]
    """Free JSON: step, scores, training configuration, git revision."""
    sha256: str
    """Of the file, hex."""


def save(
    path: Path | str,
    network: torch.nn.Module,
    config: NetworkConfig,
    metadata: Mapping[str, Any],
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write a checkpoint; a failure (full disk) leaves an earlier file at `path` intact."""
    path = Path(path)
    weights = {
        name: (value.to(dtype) if value.is_floating_point() else value).contiguous().cpu()
        for name, value in network.state_dict().items()
    }
    header = {
        'format': FORMAT,
        'network': json.dumps(to_dict(config)),
        'metadata': json.dumps(dict(metadata)),
    }
    partial = path.with_name(f'.{path.name}.partial')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(weights, partial, metadata=header)
        partial.chmod(0o644)  # safetensors writes files that only their owner can read
        os.replace(partial, path)
    except (OSError, SafetensorError) as error:
        partial.unlink(missing_ok=True)
        raise CheckpointError(f'{path}: cannot write the checkpoint: {error}') from error


def load(path: Path | str) -> Checkpoint:
    """Read a checkpoint to the CPU in float32, the network in evaluation mode.

    Raises CheckpointError (one line with the file) where it is missing, damaged, foreign, or holds
    other tensors than its own configuration describes.
    """
    path = Path(path)
    header = _read_header(path)
    described = _description(path, header)
    try:
        config = from_dict(NetworkConfig, json.loads(described['network']))
        metadata = json.loads(described['metadata'])
        network = _build_empty(config)
    except (ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(f'{path}: unknown network configuration: {error}') from error
    expected = network.state_dict()
    _check_tensors(path, header, expected)
    network.load_state_dict(_read_weights(path, expected), assign=True)
    return Checkpoint(network.eval(), config, metadata, _sha256(path))


def _build_empty(config: NetworkConfig) -> Network:
    with torch.device('meta'):
        return build_network(config)


def _read_header(path: Path) -> dict[str, Any]:
    """The header of a safetensors file: an entry per tensor, and `__metadata__`."""
    try:
        with path.open('rb') as file:
            size = path.stat().st_size - 8
            (length,) = struct.unpack('<Q', file.read(8).ljust(8, b'\0'))
            if not 2 <= length <= size:
                raise CheckpointError(f'{path}: truncated, or not a safetensors file')
            if length > MAX_HEADER_BYTES:
                raise CheckpointError(f'{path}: damaged: a header of {length} bytes')
            header = json.loads(file.read(length))
        end = max(
            (int(t['data_offsets'][1]) for k, t in header.items() if k[:2] != '__'), default=0
        )
    except OSError as error:
        raise CheckpointError(f'{path}: cannot read the checkpoint: {error.strerror}') from error
    except CheckpointError:
        raise
    except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RecursionError):
        raise CheckpointError(f'{path}: damaged safetensors header') from None
    if end != size - length:
        raise CheckpointError(f'{path}: truncated: {size - length} of {end} bytes of weights')
    return header


def _description(path: Path, header: Mapping[str, Any]) -> dict[str, str]:
    """Configuration and metadata, still as text."""
    texts = header.get('__metadata__')
    if not isinstance(texts, dict) or texts.get('format') != FORMAT:
        raise CheckpointError(f'{path}: not a checkpoint of this package (want {FORMAT!r})')
    missing = [key for key in ('network', 'metadata') if not isinstance(texts.get(key), str)]
    if missing:
        raise CheckpointError(f'{path}: damaged: {missing[0]} is missing')
    return texts


def _check_tensors(
    path: Path, header: Mapping[str, Any], expected: Mapping[str, torch.Tensor]
) -> None:
    """Raise CheckpointError unless names and shapes are those of the network; maps no memory."""
    foreign = (set(header) - {'__metadata__'}) ^ set(expected)
    if foreign:
        raise CheckpointError(f'{path}: weights do not fit their network: {min(foreign)}')
    for name, value in expected.items():
        shape = header[name].get('shape')
        if shape != list(value.shape):
            raise CheckpointError(f'{path}: {name} is {shape}, not {list(value.shape)}')


def _read_weights(path: Path, expected: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """All tensors, in the dtypes of the expected ones."""
    try:
        with safe_open(path, framework='pt', device='cpu') as file:
            return {name: file.get_tensor(name).to(v.dtype) for name, v in expected.items()}
    except SafetensorError as error:
        raise CheckpointError(f'{path}: damaged safetensors file: {error}') from error


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
