"""From a run to a file worth keeping: half the size, with its scores inside."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from tag_perception.config import InputError
from tag_perception.core import checkpoint
from tag_perception.core.labels import SKY


def publish(
    source: Path | str,
    target: Path | str,
    results: Path | str | None = None,
    sky_bias: float = 0.0,
) -> str:
    """Write the checkpoint `source` to `target` in fp16; returns a summary for the model card.

    `results` is a results file of `evaluate`; its numbers go into the metadata. `sky_bias` is
    added to the logit of sky: what is taken for sky loses its depth, which costs more than the
    cross-entropy of training knows. Of absolute paths the names stay: folders are those of one
    machine, and nobody else's business. Raises InputError where a weight does not fit in fp16, a
    file cannot be read, or there is no sky to bias.
    """
    loaded = checkpoint.load(source)
    metadata = _without_folders(loaded.metadata)
    if sky_bias:
        if 'semantic' not in loaded.config.tasks:
            raise InputError(f'{source}: has no semantic head, so no sky; leave --sky-bias out')
        loaded.network.get_parameter('heads.semantic.2.bias').data[SKY] += sky_bias
        metadata['sky_bias'] = metadata.get('sky_bias', 0.0) + sky_bias
    for name, value in loaded.network.state_dict().items():
        if value.is_floating_point() and not value.half().isfinite().all():
            raise InputError(f'{source}: {name} does not fit in fp16; keep the file as it is')
    if results is not None:
        metadata['scores'] = _scores(Path(results))
    checkpoint.save(target, loaded.network, loaded.config, metadata, dtype=torch.float16)
    size = Path(target).stat().st_size
    return f'{target}: {size / 1e6:.1f} MB, sha256 {checkpoint.load(target).sha256}'


def _without_folders(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_folders(item) for key, item in value.items()}
    if isinstance(value, str) and Path(value).is_absolute():
        return Path(value).name
    return value


def _scores(path: Path) -> dict[str, float]:
    """The plain numbers at the top level of a results file."""
    try:
        values: Mapping[str, Any] = json.loads(path.read_text())
        return {k: v for k, v in values.items() if isinstance(v, (int, float))}
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f'{path}: not a results file of evaluate: {error}') from error
