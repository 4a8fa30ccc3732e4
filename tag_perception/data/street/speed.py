"""How many streets per second a loader delivers, as a training takes them, and what each costs."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch.utils.data import DataLoader

from tag_perception.config import InputError
from tag_perception.data.street.render import (
    Rendering,
    StreetStream,
    check_device,
    check_street,
    lay_out,
    start_method,
    stem,
)
from tag_perception.data.street.view import look

SEED = 0
AHEAD = 4
"""Streets per worker before the clock starts: twice what a loader holds ready."""
STREETS_BY_STAGE = 5


@dataclass(frozen=True)
class Speed:
    """What was measured."""

    size: str
    """Height×width."""
    device: str
    workers: int
    """Loader processes; 0: the measuring process itself."""
    frames: int
    """Streets in a round."""
    rounds: int
    fps: float
    """Labelled streets per second, median of the rounds."""
    slowest_fps: float
    fastest_fps: float
    stages_ms: Mapping[str, float]
    """lay out (on the CPU), render (on the device), label (on both): medians, in one process."""


def measure(size: tuple[int, int], device: str, workers: int, frames: int, rounds: int) -> Speed:
    """Take `rounds` times `frames` labelled streets from a loader. Nothing is written."""
    for name, value in (('frames', frames), ('rounds', rounds)):
        if value < 1:
            raise InputError(f'{name} {value}: give at least 1')
    if workers < 0:
        raise InputError(f'workers {workers}: must not be negative')
    check_device(device)
    check_street(SEED, 0, size, 'train')
    stages = _stages(size, device)
    first = AHEAD * max(workers, 1)
    loader = DataLoader(
        StreetStream(SEED, size, length=first + rounds * frames, device=device),
        batch_size=None,
        num_workers=workers,
        multiprocessing_context=start_method(device, workers),
        worker_init_fn=_single_thread,
    )
    streets = iter(loader)
    _take(streets, first)
    speeds = sorted(frames / _take(streets, frames) for _ in range(rounds))
    return Speed(
        '×'.join(map(str, size)), device, workers, frames, rounds,
        median(speeds), speeds[0], speeds[-1], stages,
    )  # fmt: skip


def format_speed(speed: Speed) -> str:
    """For the reader."""
    stages = '   '.join(f'{name} {value:.1f} ms' for name, value in speed.stages_ms.items())
    return (
        f'{speed.fps:.1f} frames/s ({speed.slowest_fps:.1f}–{speed.fastest_fps:.1f}), '
        f'{speed.rounds} × {speed.frames} labelled streets of {speed.size} '
        f'on {speed.device} from {speed.workers} loader processes\n'
        f'one street in one process: {stages}'
    )


def _take(streets: Any, count: int) -> float:
    """Seconds until the next `count` streets are there."""
    start = time.perf_counter()
    for _ in range(count):
        next(streets)
    return time.perf_counter() - start


def _stages(size: tuple[int, int], device: str) -> dict[str, float]:
    rows = []
    for frame in range(STREETS_BY_STAGE + 1):
        times = [time.perf_counter()]
        world = lay_out(SEED, frame, size)
        times.append(time.perf_counter())
        picture = look(world, device)
        if device != 'cpu':
            torch.cuda.synchronize(device)
        times.append(time.perf_counter())
        _ = Rendering(stem(SEED, frame), world, picture).sample
        times.append(time.perf_counter())
        rows.append([(end - start) * 1e3 for start, end in itertools.pairwise(times)])
    columns = zip(*rows[1:], strict=True)  # the first one draws the textures, too
    return dict(zip(('lay out', 'render', 'label'), map(median, columns), strict=True))


def _single_thread(worker: int) -> None:
    """As in training: more threads would only wait for those of the other workers."""
    torch.set_num_threads(1)
