"""From datasets to batches: an endless, reproducible sequence of draws.

Draw k of a training is a function of (seed, k) alone: which image, mirrored or not, which colours.
So a resumed training goes on at draw steps × batch_size, whatever loaders had read ahead.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, Protocol

import cv2
import lightning as L
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from tag_perception.core.structures import Sample
from tag_perception.core.tasks import TASKS
from tag_perception.data.resizing import resize_sample
from tag_perception.data.street import start_method
from tag_perception.learn.configuration import DataConfig, TrainConfig


class SampleSource(Protocol):
    """What holds labelled images: a dataset on disk, or streets that are rendered on access."""

    def __getitem__(self, index: int) -> Sample: ...


class Draws(Sampler[int]):
    """start + rank, start + rank + world, …: endless, or up to `stop`."""

    def __init__(self, start: int, rank: int, world: int, stop: int | None = None) -> None:
        self.start, self.rank, self.world, self.stop = start, rank, world, stop

    def __iter__(self) -> Iterator[int]:
        draws = itertools.count(self.start + self.rank, self.world)
        if self.stop is None:
            return draws
        stop = self.stop
        return itertools.takewhile(lambda draw: draw < stop, draws)


class Shuffled:
    """Maps draws to indices: every epoch a new permutation of `length`, set by `seed`."""

    def __init__(self, length: int, seed: int) -> None:
        self.length, self.seed = length, seed

    def __call__(self, draw: int) -> int:
        """Index of a draw; each index comes once in every `length` draws."""
        epoch, position = divmod(draw, self.length)
        return int(_permutation(self.length, self.seed, epoch)[position])


class TrainingItems(Dataset):
    """Draw → one training item: image, encoded targets and name."""

    def __init__(
        self, source: SampleSource, order: Callable[[int], int], config: TrainConfig, stride: int
    ) -> None:
        self.source, self.order, self.stride = source, order, stride
        self.data, self.seed = config.data, config.seed
        self.size, self.tasks = config.network.input_size, config.network.tasks
        self.latest: tuple[int, Sample] | None = None

    def __getitem__(self, draw: int) -> dict[str, Any]:
        image, view = divmod(draw, self.data.views)
        sample = self._sample(self.order(image))
        if self.data.flip and self._mirrored(image, view):
            sample = mirror(sample)
        if self.data.jitter:
            rng = np.random.default_rng((self.seed, draw))
            sample = replace(sample, image=jitter(sample.image, rng, self.data.jitter))
        return encode(sample, self.tasks, self.stride)

    def _mirrored(self, image: int, view: int) -> bool:
        """Views of one image alternate; which comes first is drawn."""
        return bool((np.random.default_rng((self.seed, image, 1)).integers(2) + view) % 2)

    def _sample(self, index: int) -> Sample:
        """At the input size; further views of the latest image do not load it again."""
        if self.latest is None or self.latest[0] != index:
            self.latest = index, resize_sample(self.source[index], self.size)
        return self.latest[1]


class ValidationItems(Dataset):
    """Index → one item of the validation, as it is."""

    def __init__(
        self, source: SampleSource, length: int, config: TrainConfig, stride: int
    ) -> None:
        self.source, self.length, self.stride = source, length, stride
        self.size, self.tasks = config.network.input_size, config.network.tasks

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        return encode(resize_sample(self.source[index], self.size), self.tasks, self.stride)


class Loaders(L.LightningDataModule):
    """The two loaders; the training one starts where the resumed training stopped."""

    def __init__(self, config: TrainConfig, training: Dataset, validation: Dataset) -> None:
        super().__init__()
        self.config, self.training, self.validation = config, training, validation

    def train_dataloader(self) -> DataLoader:
        """Batches of one device, from the trainer's step on, without end."""
        trainer, data = self.trainer, self.config.data
        assert trainer is not None
        start = trainer.global_step * data.batch_size
        draws = Draws(start, trainer.global_rank, trainer.world_size)
        return self._loader(self.training, draws, data, drop_last=True)

    def val_dataloader(self) -> DataLoader:
        """Every validation image once, shared among the devices."""
        trainer = self.trainer
        assert trainer is not None
        length = len(self.validation)  # type: ignore[arg-type]
        draws = Draws(0, trainer.global_rank, trainer.world_size, stop=length)
        return self._loader(self.validation, draws, self.config.data, drop_last=False)

    def _loader(
        self, items: Dataset, draws: Draws, data: DataConfig, drop_last: bool
    ) -> DataLoader:
        trainer = self.trainer
        assert trainer is not None
        parts = trainer.world_size * self.config.accumulate
        device = self.config.data.rendered_on()
        gpu = trainer.strategy.root_device if device == 'cuda' else torch.device('cpu')
        return DataLoader(
            items,
            batch_size=data.batch_size // parts,
            sampler=draws,
            num_workers=data.workers,
            persistent_workers=data.workers > 0,
            multiprocessing_context=start_method(device, data.workers),
            worker_init_fn=partial(_start_worker, gpu=gpu),
            drop_last=drop_last,
            pin_memory=torch.cuda.is_available(),
        )


def encode(sample: Sample, tasks: tuple[str, ...], stride: int) -> dict[str, Any]:
    """image (H, W, 3) uint8, targets by task, and name, of a sample at the input size."""
    return {
        'image': torch.from_numpy(np.ascontiguousarray(sample.image)),
        'targets': {task: TASKS[task].encode_target(sample, stride) for task in tasks},
        'name': sample.name,
    }


def mirror(sample: Sample) -> Sample:
    """The sample as a mirror shows it: right is left, in pixels, calibration and boxes.

    A mirrored box is a box again because left and right halves of a vehicle are alike; its
    observation angle becomes pi - alpha.
    """
    width = sample.camera.width
    camera = replace(sample.camera, u0=width - 1 - sample.camera.u0, camera_T_vehicle=None)
    boxes, ignore = sample.detection3d, sample.ignore_px
    if boxes is not None:
        boxes = replace(
            boxes,
            center_cam=boxes.center_cam * boxes.center_cam.new_tensor([1, -1, 1]),
            rotation_cam=boxes.rotation_cam * boxes.rotation_cam.new_tensor([1, -1, 1, -1]),
            box_2d_px=_mirror_boxes(boxes.box_2d_px, width),
        )
    return replace(
        sample,
        image=_mirror_columns(sample.image),
        camera=camera,
        semantic=_mirror_columns(sample.semantic),
        depth=_mirror_columns(sample.depth),
        detection3d=boxes,
        ignore_px=None if ignore is None else _mirror_boxes(ignore, width),
    )


def jitter(image: np.ndarray, rng: np.random.Generator, amount: float) -> np.ndarray:
    """The (H, W, 3) uint8 image with a random gain per colour, contrast and brightness."""
    gain = 1 + amount * rng.uniform(-1, 1) + amount / 2 * rng.uniform(-1, 1, 3)
    offset = 64 * amount * rng.uniform(-1, 1)
    table = np.arange(256)[:, None] * gain + offset
    table = np.clip(np.rint(table), 0, 255).astype(np.uint8)
    return cv2.LUT(np.ascontiguousarray(image), table[:, None])


def _mirror_columns(values: Any) -> Any:
    return None if values is None else np.ascontiguousarray(values[:, ::-1])


def _mirror_boxes(boxes: Any, width: int) -> Any:
    """(N, 4) x1, y1, x2, y2; pixel centre 0 becomes pixel centre width - 1."""
    mirrored = boxes[:, [2, 1, 0, 3]]
    mirrored[:, [0, 2]] = width - 1 - mirrored[:, [0, 2]]
    return mirrored


@lru_cache(maxsize=2)
def _permutation(length: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(length)


def _start_worker(worker: int, gpu: torch.device) -> None:
    """Loaders work side by side: more threads in each would only wait for one another.

    They render on the GPU of their own training process, where they render on one.
    """
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    if gpu.type == 'cuda':
        torch.cuda.set_device(gpu)
