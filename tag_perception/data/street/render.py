"""Seed and frame number → Sample, on the fly or as an endless source for training."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch.utils.data import Dataset

from tag_perception.config import InputError
from tag_perception.core.labels import ID_TO_TRAIN_ID
from tag_perception.core.structures import Sample
from tag_perception.data.street.annotation import Annotation, annotate, objects
from tag_perception.data.street.view import SPLITS, Picture, World, compose, look

ANNOTATED = 19
"""Index of the annotated frame in a snippet of 30, as in the real dataset."""
SMALLEST_SIZE = (32, 64)
"""Height and width below which a street is not worth rendering, pixels."""


@dataclass(frozen=True)
class Rendering:
    """One rendered frame with everything there is to know about it."""

    name: str
    world: World
    picture: Picture

    @cached_property
    def annotation(self) -> Annotation:
        """What annotators would have written."""
        return annotate(self.world, self.picture)

    @property
    def sample(self) -> Sample:
        """The labelled image on the host; depth is NaN in the sky and on the ego bonnet."""
        picture = self.picture
        return Sample(
            name=self.name,
            image=picture.image.cpu().numpy(),
            camera=self.world.rig.camera,
            semantic=ID_TO_TRAIN_ID[picture.label.cpu().numpy()],
            depth=picture.depth.cpu().numpy(),
            detection3d=objects(self.annotation, self.world),
            ignore_px=self.annotation.ignore_px.astype(np.float32),
        )


def stem(seed: int, frame: int, step: int = 0) -> str:
    """Name of a frame, as its files begin."""
    return f'{city(seed)}_{frame:06d}_{ANNOTATED + step:06d}'


def parse_size(text: str) -> tuple[int, int]:
    """'512x1024' → (512, 1024), height before width."""
    height, _, width = text.partition('x')
    if not (height.isdecimal() and width.isdecimal()):
        raise InputError(f'size {text!r} is not of the form HEIGHTxWIDTH, e.g. 512x1024')
    return int(height), int(width)


@lru_cache
def check_device(device: str) -> None:
    """Raise InputError unless tensors can live on this device."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].rstrip('.')
        raise InputError(f'device {device!r} cannot be used ({reason}); cpu always can') from error


def start_method(device: str, workers: int) -> str | None:
    """How a loader has to start workers that render: CUDA does not survive a fork.

    The `multiprocessing_context` of a DataLoader; None is the default of the platform.
    """
    return 'spawn' if workers and device != 'cpu' else None


def check_street(seed: int, frame: int, size: tuple[int, int], split: str) -> None:
    """Raise InputError unless there is such a street."""
    if split not in SPLITS:
        raise InputError(f'no split {split!r} for streets; choose one of {", ".join(SPLITS)}')
    if seed < 0 or frame < 0:
        raise InputError(f'seed {seed}, frame {frame}: must not be negative')
    if size[0] < SMALLEST_SIZE[0] or size[1] < SMALLEST_SIZE[1]:
        low = 'x'.join(map(str, SMALLEST_SIZE))
        raise InputError(f'size {size[0]}x{size[1]} is too small; at least {low} (height x width)')


def city(seed: int) -> str:
    """The city name of all frames of a seed."""
    return f'street{seed}'


def lay_out(
    seed: int, frame: int, size: tuple[int, int], split: str = 'train', step: int = 0
) -> World:
    """Street `frame` of `seed`, `step` / 17 s after the annotated moment, not rendered yet.

    The same arguments give the same world; another split gives other streets.
    """
    check_street(seed, frame, size, split)
    return compose(seed, frame, size, split, step)


def render_frame(
    seed: int,
    frame: int,
    size: tuple[int, int],
    split: str = 'train',
    step: int = 0,
    device: str = 'cpu',
) -> Rendering:
    """The picture of `lay_out`, whatever was rendered before."""
    check_device(device)
    world = lay_out(seed, frame, size, split, step)
    return Rendering(stem(seed, frame, step), world, look(world, device))


def render(
    seed: int,
    frame: int,
    size: tuple[int, int],
    split: str = 'train',
    step: int = 0,
    device: str = 'cpu',
) -> Sample:
    """The Sample of `render_frame`."""
    return render_frame(seed, frame, size, split, step, device).sample


class StreetStream(Dataset):
    """Streets as a dataset that is rendered on access: sample i is a function of (seed, split, i).

    With `length` None it is endless (give the loader a sampler). Safe in loader workers; on a GPU
    they share it and have to be started by `start_method`. To lay a street out and to label it is
    work for a CPU core, so one process alone does not keep a GPU busy.
    """

    def __init__(
        self,
        seed: int,
        size: tuple[int, int],
        split: str = 'train',
        length: int | None = None,
        device: str = 'cpu',
    ) -> None:
        self.seed, self.size, self.split = seed, size, split
        self.length, self.device = length, device

    def __len__(self) -> int:
        if self.length is None:
            raise TypeError('this stream of streets is endless; give length=N')
        return self.length

    def __getitem__(self, index: int) -> Sample:
        if self.length is not None and not 0 <= index < self.length:
            raise IndexError(f'street {index} of {self.length}')
        return render(self.seed, index, self.size, self.split, device=self.device)
