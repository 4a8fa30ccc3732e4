"""From an experiment to a run folder; the same command continues a run that was killed."""

from __future__ import annotations

import logging
import math
import os
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import Tensor

from tag_perception import config as configuration
from tag_perception.config import ConfigError, InputError, flatten, to_dict
from tag_perception.core import checkpoint
from tag_perception.core.checkpoint import CheckpointError
from tag_perception.core.network import Network, build_network
from tag_perception.learn.configuration import TrainConfig
from tag_perception.learn.module import ClassifierModule, SceneModule, TrainingModule
from tag_perception.learn.samples import Loaders
from tag_perception.learn.saving import LAST, CheckpointWriter
from tag_perception.learn.sources import Sources, open_sources

Shapes = dict[str, tuple[int, ...]]
"""Of tensors, by name."""

EXPERIMENT = 'experiment.yaml'
MAY_CHANGE = (
    'steps', 'epochs', 'precision', 'device', 'devices', 'machines', 'accumulate',
    'validate_every', 'save_every', 'log_every', 'init_from', 'output',
    'data.root', 'data.workers', 'data.validation_images', 'data.render_device',
)  # fmt: skip
"""Keys in which the second start of a run may differ from the first."""


def train(config: TrainConfig, dry_run: bool = False) -> Path:
    """Train, or go on training, and return the run folder; a dry run leaves no file.

    Raises InputError (one line) for wrong input, a device that is not there, a folder that holds
    another run, a loss that is not finite, or a disk that is full.
    """
    _check_device(config)
    folder = Path(config.output)
    resume = None if dry_run else _resume_point(folder, config)
    logging.getLogger('lightning.pytorch').setLevel(logging.WARNING)  # no advertisements
    L.seed_everything(config.seed, verbose=False)
    network = build_network(config.network)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if config.init_from and resume is None:
        initialise(network, config.init_from)
    sources = open_sources(config, network.stride)
    steps = _steps(config, sources)
    kind = ClassifierModule if config.goal == 'imagenet' else SceneModule
    module = kind(config, network, steps)
    if resume is not None:
        _check_network(resume, module)
    trainer = _trainer(config, folder, steps, resume, dry_run)
    _fit(trainer, module, Loaders(config, sources.training, sources.validation), resume)
    return folder


def initialise(network: Network, path: str) -> None:
    """Load starting weights: of an ImageNet checkpoint the backbone, of any other all tensors.

    Raises CheckpointError where the checkpoint is of another network.
    """
    try:
        loaded = checkpoint.load(path)
    except CheckpointError as error:
        raise CheckpointError(
            f'init_from: {error}; make it (ImageNet: config/train/imagenet.yaml), give another '
            'one, or start from random weights with init_from='
        ) from error
    backbone_only = loaded.metadata.get('goal') == 'imagenet'
    prefix = 'backbone.' if backbone_only else ''
    mine, theirs = (
        {k: v for k, v in n.state_dict().items() if k.startswith(prefix)}
        for n in (network, loaded.network)
    )
    different = _first_difference(_shapes(mine), _shapes(theirs))
    if different:
        raise CheckpointError(
            f'init_from: {path} is of another network ({loaded.config.backbone}, width '
            f'{loaded.config.width}): {different} differs'
        )
    network.load_state_dict(theirs, strict=not backbone_only)


@dataclass(frozen=True)
class _Resume:
    checkpoint: Path
    step: int
    shapes: Shapes


def _check_device(config: TrainConfig) -> None:
    """Raise ConfigError where Lightning would fail at length, or take another precision."""
    available = torch.cuda.device_count()
    on_cuda = config.device == 'cuda' or (config.device == 'auto' and available > 0)
    if on_cuda and config.devices > available:
        raise ConfigError(
            f'devices {config.devices}: this machine has {available} CUDA devices; '
            'set devices to that, or device to cpu'
        )
    if config.data.rendered_on() == 'cuda' and not available:
        raise ConfigError(
            'data.render_device cuda: this machine has no CUDA device; set it to auto or cpu'
        )
    if config.precision == '16-mixed' and not on_cuda:
        raise ConfigError('precision 16-mixed needs a CUDA device; the CPU can do bf16-mixed')


def _resume_point(folder: Path, config: TrainConfig) -> _Resume | None:
    """Where a run in `folder` stopped, after checking that it is this one."""
    stored_path, last = folder / EXPERIMENT, folder / LAST
    if not last.exists():
        return None
    stored = flatten(to_dict(configuration.load(TrainConfig, stored_path)))
    wanted = flatten(to_dict(config))
    for key in sorted(stored.keys() | wanted.keys()):
        if key not in MAY_CHANGE and stored.get(key) != wanted.get(key):
            raise ConfigError(
                f'{folder} holds a run with {key} {stored.get(key)!r}, not {wanted.get(key)!r}: '
                'give another folder with output=…, or the same values to continue it'
            )
    try:
        state = torch.load(last, map_location='meta', weights_only=True)
        return _Resume(last, int(state['global_step']), _shapes(state['state_dict']))
    except Exception as error:  # whatever a damaged pickle raises
        raise CheckpointError(f'{last}: cannot be read, remove it to start again') from error


def _check_network(resume: _Resume, module: TrainingModule) -> None:
    different = _first_difference(resume.shapes, _shapes(module.state_dict()))
    if different:
        raise CheckpointError(
            f'{resume.checkpoint}: of another network, {different} differs; '
            'remove it to start again, or give another folder with output=…'
        )


def _shapes(state: Mapping[str, Tensor]) -> Shapes:
    return {name: tuple(value.shape) for name, value in state.items()}


def _first_difference(one: Shapes, other: Shapes) -> str | None:
    """The first tensor, by name, that is missing from one or has another shape."""
    names = sorted(one.keys() | other.keys())
    return next((name for name in names if one.get(name) != other.get(name)), None)


def _steps(config: TrainConfig, sources: Sources) -> int:
    if config.steps:
        return config.steps
    if sources.epoch is None:
        raise ConfigError('rendered streets have no epochs: give steps instead')
    return config.epochs * math.ceil(sources.epoch / config.data.batch_size)


def _trainer(
    config: TrainConfig, folder: Path, steps: int, resume: _Resume | None, dry_run: bool
) -> L.Trainer:
    several = config.devices * config.machines > 1
    options: dict[str, Any] = {
        'accelerator': {'auto': 'auto', 'cuda': 'gpu', 'cpu': 'cpu'}[config.device],
        'devices': config.devices,
        'num_nodes': config.machines,
        'precision': config.precision,
        'accumulate_grad_batches': config.accumulate,
        'gradient_clip_val': config.optimizer.clip_norm or None,
        'sync_batchnorm': several and config.device != 'cpu' and torch.cuda.is_available(),
        'strategy': _strategy(config) if several else 'auto',
        'use_distributed_sampler': False,
        'enable_model_summary': False,
        'enable_checkpointing': False,
        'num_sanity_val_steps': 0,
        'max_steps': steps,
    }
    progress = _Progress(steps * config.accumulate)
    if dry_run:
        return L.Trainer(**options, fast_dev_run=2, callbacks=[progress])
    start = resume.step if resume else 0
    _prepare(folder, config)
    return L.Trainer(
        **options,
        callbacks=[
            progress,
            CheckpointWriter(folder, config, config.data.batch_size),
        ],
        logger=[
            # Written at once: what comes before a checkpoint has to survive a kill after it.
            CSVLogger(folder, 'csv', f'from_step_{start:07d}', flush_logs_every_n_steps=1),
            TensorBoardLogger(folder, 'tensorboard', '', flush_secs=10),
        ],
        default_root_dir=folder,
        log_every_n_steps=config.log_every,
        val_check_interval=config.validate_every * config.accumulate,
        check_val_every_n_epoch=None,
    )


def _prepare(folder: Path, config: TrainConfig) -> None:
    partial = folder / f'.{EXPERIMENT}.partial'
    try:
        folder.mkdir(parents=True, exist_ok=True)
        configuration.save(config, partial)
        os.replace(partial, folder / EXPERIMENT)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise InputError(f'{folder}: cannot write the run folder: {error.strerror}') from error


def _strategy(config: TrainConfig) -> str:
    """ImageNet leaves the heads without gradients, which plain DDP takes for a fault."""
    return 'ddp_find_unused_parameters_true' if config.goal == 'imagenet' else 'ddp'


def _fit(
    trainer: L.Trainer, module: TrainingModule, loaders: Loaders, resume: _Resume | None
) -> None:
    with warnings.catch_warnings():
        for message in ('.*does not have many workers', 'Experiment logs', '.*treespec, LeafSpec'):
            warnings.filterwarnings('ignore', message=message)
        try:
            trainer.fit(
                module,
                loaders,
                ckpt_path=str(resume.checkpoint) if resume else None,
                weights_only=True,
            )
        except OSError as error:
            raise InputError(
                f'{trainer.default_root_dir}: writing failed at step {trainer.global_step}: '
                f'{error.strerror}; the last checkpoint is intact, run the same command to go on'
            ) from error


class _Progress(TQDMProgressBar):
    """Knows the length that the endless loader does not tell; shows losses alone."""

    def __init__(self, batches: int) -> None:
        super().__init__()
        self.batches = batches

    @property
    def total_train_batches(self) -> int:
        return self.batches

    def on_train_start(self, *_: Any) -> None:
        """A resumed training starts in the middle, and is timed from there."""
        super().on_train_start()
        done = self.trainer.fit_loop.epoch_loop.batch_progress.current.ready
        self.train_progress_bar.reset(self.batches)
        self.train_progress_bar.initial = self.train_progress_bar.n = done

    def get_metrics(self, trainer: L.Trainer, module: L.LightningModule) -> dict[str, Any]:
        """Without the name of the log."""
        metrics = super().get_metrics(trainer, module)
        return {name: value for name, value in metrics.items() if name != 'v_num'}
