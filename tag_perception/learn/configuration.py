"""What an experiment file holds: `config/train/<experiment>.yaml` ⇄ TrainConfig.

A file may start from another one (`extends: base.yaml`, relative to itself) and names its network
by `preset`; fields under `network` change single values of that preset.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
import yaml

from tag_perception.config import ConfigError, from_dict, override, to_dict
from tag_perception.core.network import PRESETS, NetworkConfig
from tag_perception.core.tasks import LOSS_WEIGHTS


@dataclass(frozen=True)
class DataConfig:
    """Where images come from and how many make a step."""

    source: Literal['cityscapes3d', 'street', 'imagenet'] = 'cityscapes3d'
    root: str = ''
    """Folder of the dataset; empty: the environment variable $CITYSCAPES_DATASET, or $IMAGENET.
    For street, a tree of generated streets; empty: rendered on the fly, never the same twice."""
    render_size: tuple[int, int] = (512, 1024)
    """street: height and width of the camera image, before it is resized to the network input."""
    render_device: Literal['auto', 'cuda', 'cpu'] = 'cpu'
    """street: where the loader processes render; auto: on the GPU if there is one. They share it
    with the training, and each of them takes memory there."""
    views: int = 1
    """Times that an image is shown, one after the other, before the next one is rendered."""
    batch_size: int = 2
    """Images in a step, over all devices."""
    workers: int = 4
    """Processes per device that load images; 0: the training process itself."""
    flip: bool = False
    """Mirror every second view, its camera and boxes with it."""
    jitter: float = 0.0
    """Random gain, contrast and colour of the image, as a fraction; 0: none."""
    validation_images: int = 0
    """Images in the validation; 0: all of the split."""

    def __post_init__(self) -> None:
        _positive(self, 'batch_size', 'views')
        _not_negative(self, 'workers', 'validation_images', 'jitter')

    def rendered_on(self) -> str:
        """Device on which the loaders render; cpu also where they render nothing."""
        if self.source != 'street' or self.root or self.render_device == 'cpu':
            return 'cpu'
        return 'cuda' if self.render_device == 'cuda' or torch.cuda.is_available() else 'cpu'


@dataclass(frozen=True)
class OptimizerConfig:
    """How weights move."""

    name: Literal['adam', 'adamw', 'sgd'] = 'adam'
    lr: float = 2e-5
    weight_decay: float = 0.0
    momentum: float = 0.9
    """sgd only; Nesterov's."""
    clip_norm: float = 10.0
    """Largest norm of the gradient; 0: no limit."""
    average_decay: float = 0.0
    """Decay per step of the moving average of the weights that is saved; 0: no average."""

    def __post_init__(self) -> None:
        _positive(self, 'lr')
        _not_negative(self, 'weight_decay', 'momentum', 'clip_norm')
        if not 0 <= self.average_decay < 1:
            raise ConfigError(f'average_decay {self.average_decay} is outside [0, 1)')


@dataclass(frozen=True)
class ScheduleConfig:
    """The learning rate over the training, as a factor of `optimizer.lr`."""

    kind: Literal['poly', 'cosine', 'steps', 'constant'] = 'poly'
    power: float = 0.9
    """poly: (1 - progress) ** power."""
    milestones: tuple[float, ...] = (0.3, 0.6, 0.9)
    """steps: where, as a part of the training, the rate falls by `gamma`."""
    gamma: float = 0.1
    warmup: int = 0
    """Steps over which the rate first rises linearly."""


@dataclass(frozen=True)
class TrainConfig:
    """One training, from the weights it starts with to the folder it fills."""

    goal: Literal['scene', 'imagenet'] = 'scene'
    """scene: the tasks of the network. imagenet: its backbone, by classification."""
    preset: str = 'tag'
    """A name in `core.network.PRESETS`."""
    network: NetworkConfig = field(default_factory=NetworkConfig)
    """The preset, with what the file changes."""
    init_from: str = ''
    """Checkpoint to start from: of the same network, or one of ImageNet for the backbone alone.
    Empty: random weights. `{preset}` stands for the preset, here and in `output`."""
    output: str = ''
    """Folder of the run; empty: out/train/<name of the file>."""
    seed: int = 0
    steps: int = 0
    """Optimiser steps; exactly one of `steps` and `epochs` is given."""
    epochs: int = 0
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    loss_weights: dict[str, float] = field(default_factory=lambda: dict(LOSS_WEIGHTS))
    """lambda of each task; the paper's unless the experiment says otherwise."""
    depth_beta_m: float = 1.0
    """Depth error in metres up to which its loss is quadratic. Larger: more for the RMSE, where a
    few large errors count most; smaller: more for the typical pixel."""
    auxiliary_weight: float = 0.4
    """Weight of the losses of training-only heads, where the network has them."""
    precision: Literal['32-true', 'bf16-mixed', '16-mixed'] = '32-true'
    device: Literal['auto', 'cuda', 'cpu'] = 'auto'
    devices: int = 1
    """Devices per machine; over one, Lightning's `ddp` strategy."""
    machines: int = 1
    accumulate: int = 1
    """Batches whose gradients make one step; a batch holds batch_size / accumulate images."""
    validate_every: int = 1000
    """Steps between validations."""
    save_every: int = 500
    """Steps between checkpoints."""
    log_every: int = 50
    """Steps between lines of the log."""

    def __post_init__(self) -> None:
        _positive(
            self, 'devices', 'machines', 'accumulate', 'validate_every', 'save_every', 'log_every',
            'depth_beta_m',
        )  # fmt: skip
        _not_negative(self, 'steps', 'epochs', 'auxiliary_weight')
        if (self.steps > 0) == (self.epochs > 0):
            raise ConfigError('exactly one of steps and epochs has to be positive')
        if set(self.loss_weights) != set(LOSS_WEIGHTS):
            raise ConfigError(f'loss_weights needs exactly {", ".join(LOSS_WEIGHTS)}')
        parts = self.devices * self.machines * self.accumulate
        if self.data.batch_size % parts:
            raise ConfigError(
                f'data.batch_size {self.data.batch_size} is not a multiple of {parts} '
                '(devices × machines × accumulate)'
            )


def read_experiment(path: Path | str, overrides: Sequence[str] = ()) -> TrainConfig:
    """The TrainConfig of an experiment file with "a.b=c" overrides applied.

    Raises ConfigError (one line) for an unreadable file, an unknown key or a wrong value.
    """
    values = _read(Path(path))
    early = [item for item in overrides if item.startswith('preset=')]
    if early:
        values['preset'] = early[-1].removeprefix('preset=')
    try:
        config = from_dict(TrainConfig, _with_preset(values))
        config = override(config, [item for item in overrides if item not in early])
    except ConfigError as error:
        raise ConfigError(f'{path}: {error}') from error
    return replace(
        config,
        output=(config.output or f'out/train/{Path(path).stem}').replace(
            '{preset}', config.preset
        ),
        init_from=config.init_from.replace('{preset}', config.preset),
    )


def _read(path: Path, depth: int = 0) -> dict[str, Any]:
    """Values of a file over those of the file that it extends."""
    try:
        values = yaml.safe_load(path.read_text()) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f'{path}: {" ".join(str(error).split())}') from error
    if not isinstance(values, dict):
        raise ConfigError(f'{path}: expected a mapping, got {type(values).__name__}')
    parent = values.pop('extends', None)
    if parent is None:
        return values
    if depth == 8:
        raise ConfigError(f'{path}: extends too many files; do they extend each other?')
    return _merge(_read(path.parent / str(parent), depth + 1), values)


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = _merge(old, value) if both else value  # type: ignore[arg-type]
    return merged


def _with_preset(values: Mapping[str, Any]) -> dict[str, Any]:
    name = values.get('preset', TrainConfig.preset)
    if name not in PRESETS:
        raise ConfigError(f'preset {name!r} is not one of {", ".join(PRESETS)}')
    changes = values.get('network') or {}
    if not isinstance(changes, Mapping):
        raise ConfigError(f'network: expected a mapping, got {changes!r}')
    return {**values, 'network': {**to_dict(PRESETS[name]), **changes}}


def _positive(config: Any, *names: str) -> None:
    for name in names:
        if not getattr(config, name) > 0:
            raise ConfigError(f'{name} has to be positive, not {getattr(config, name)}')


def _not_negative(config: Any, *names: str) -> None:
    for name in names:
        if not getattr(config, name) >= 0:
            raise ConfigError(f'{name} cannot be negative: {getattr(config, name)}')
