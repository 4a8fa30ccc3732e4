"""The datasets of an experiment: Cityscapes-3D, streets, ImageNet."""

from __future__ import annotations

import os
from typing import NamedTuple

from torch.utils.data import Dataset

from tag_perception.config import ConfigError, InputError
from tag_perception.data.cityscapes3d import Cityscapes3D
from tag_perception.data.street import StreetStream
from tag_perception.learn.configuration import TrainConfig
from tag_perception.learn.imagenet import ClassFolders, TrainingCrops, ValidationCrops
from tag_perception.learn.samples import Shuffled, TrainingItems, ValidationItems

ENVIRONMENT = {'cityscapes3d': 'CITYSCAPES_DATASET', 'imagenet': 'IMAGENET'}
"""Variable that says where a dataset is when `data.root` does not."""


STREETS_VALIDATED = 32
"""Images of a validation on rendered streets where the experiment does not say."""


class Sources(NamedTuple):
    """What is trained on, what is validated on, and how many images make an epoch."""

    training: Dataset
    validation: Dataset
    epoch: int | None
    """None: the images never end."""


def open_sources(config: TrainConfig, stride: int) -> Sources:
    """Both datasets of an experiment for a network of this stride.

    Raises InputError where the data are missing or do not go with the goal.
    """
    if (config.goal == 'imagenet') != (config.data.source == 'imagenet'):
        raise ConfigError(f'goal {config.goal} cannot be trained on {config.data.source} data')
    if config.data.source == 'imagenet':
        return _imagenet(config)
    if config.data.source == 'street' and not config.data.root:
        return _rendered_streets(config, stride)
    return _tree(config, stride)


def _tree(config: TrainConfig, stride: int) -> Sources:
    root, need = _root(config), config.network.tasks
    training = Cityscapes3D(root, 'train', need)
    validation = Cityscapes3D(root, 'val', need)
    length = len(training)
    return Sources(
        TrainingItems(training, Shuffled(length, config.seed), config, stride),
        ValidationItems(validation, _limit(config, len(validation)), config, stride),
        length,
    )


def _rendered_streets(config: TrainConfig, stride: int) -> Sources:
    """Streets of the split train, each a new one; a fixed number of the split val."""
    size, count = config.data.render_size, config.data.validation_images or STREETS_VALIDATED
    device = config.data.rendered_on()
    endless = StreetStream(config.seed, size, 'train', device=device)
    few = StreetStream(config.seed, size, 'val', count, device)
    return Sources(
        TrainingItems(endless, _in_order, config, stride),
        ValidationItems(few, count, config, stride),
        None,
    )


def _in_order(draw: int) -> int:
    """Index of a draw. A lambda could not be sent to a process that is not forked."""
    return draw


def _imagenet(config: TrainConfig) -> Sources:
    root, size = _root(config), config.network.input_size
    training, validation = ClassFolders(root, 'train'), ClassFolders(root, 'val')
    return Sources(
        TrainingCrops(training, size, config.seed),
        ValidationCrops(validation, size, _limit(config, len(validation))),
        len(training),
    )


def _limit(config: TrainConfig, available: int) -> int:
    return min(config.data.validation_images or available, available)


def _root(config: TrainConfig) -> str:
    variable = ENVIRONMENT.get(config.data.source, '')
    root = config.data.root or os.environ.get(variable, '')
    if not root:
        raise InputError(f'no dataset: give data.root=FOLDER or set ${variable}')
    return root
