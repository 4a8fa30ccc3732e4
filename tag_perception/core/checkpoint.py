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

from tag_perception.config import ConfigError, InputError, from_dict, to_dict
from tag_perception.core.network import Network, NetworkConfig, build_network

FORMAT = 'tag_perception 1'


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
    try:
        config = from_dict(NetworkConfig, json.loads(header['network']))
        metadata = json.loads(header['metadata'])
        network = _build_empty(config)
        network.load_state_dict(_read_weights(path, network), assign=True)
    except (ConfigError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f'{path}: unknown network configuration: {error}') from error
    return Checkpoint(network.eval(), config, metadata, _sha256(path))


def _build_empty(config: NetworkConfig) -> Network:
    with torch.device('meta'):
        return build_network(config)


def _read_header(path: Path) -> dict[str, str]:
    """The string metadata; checks that the file is as long as its header claims."""
    try:
        with path.open('rb') as file:
            size = path.stat().st_size
            (length,) = struct.unpack('<Q', file.read(8).ljust(8, b'\0'))
            if not 2 <= length <= size - 8:
                raise CheckpointError(f'{path}: truncated, or not a safetensors file')
            header = json.loads(file.read(length))
            end = max(
                (t['data_offsets'][1] for k, t in header.items() if k[:2] != '__'), default=0
            )
    except OSError as error:
        raise CheckpointError(f'{path}: cannot read the checkpoint: {error.strerror}') from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f'{path}: damaged safetensors header') from error
    if end != size - 8 - length:
        raise CheckpointError(f'{path}: truncated: {size - 8 - length} of {end} bytes of weights')
    metadata = header.get('__metadata__') or {}
    if metadata.get('format') != FORMAT or not {'network', 'metadata'} <= set(metadata):
        raise CheckpointError(f'{path}: not a checkpoint of this package (want {FORMAT!r})')
    return metadata


def _read_weights(path: Path, network: Network) -> dict[str, torch.Tensor]:
    """All tensors in the network's dtypes, after checking names and shapes against it."""
    expected = network.state_dict()
    try:
        with safe_open(path, framework='pt', device='cpu') as file:
            names = set(file.keys())
            if names != set(expected):
                name = sorted(names ^ set(expected))[0]
                raise CheckpointError(f'{path}: weights do not fit their network: {name}')
            for name, value in expected.items():
                shape = tuple(file.get_slice(name).get_shape())
                if shape != tuple(value.shape):
                    raise CheckpointError(
                        f'{path}: {name} is {shape}, its network needs {tuple(value.shape)}'
                    )
            return {name: file.get_tensor(name).to(v.dtype) for name, v in expected.items()}
    except SafetensorError as error:
        raise CheckpointError(f'{path}: damaged safetensors file: {error}') from error


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
