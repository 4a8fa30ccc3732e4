"""What the CPU's and CUDA's ways from images to Scenes have in common."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tag_perception.core.structures import Camera, Scene


class EngineFailure(RuntimeError):
    """The engine cannot go on; the message says why and what helps."""


@dataclass(frozen=True)
class MapMemory:
    """Where the maps of one image may be left, so that nobody has to copy them there."""

    semantic: np.ndarray
    """(H, W) uint8."""
    depth: np.ndarray
    """(H, W) float32."""

    @staticmethod
    def of_size(size: tuple[int, int]) -> MapMemory:
        """Memory of its own for an image of height, width."""
        return MapMemory(np.empty(size, np.uint8), np.empty(size, np.float32))


class Runner(Protocol):
    """One way from images to Scenes: `cpu.CpuRunner` or `cuda.CudaRunner`."""

    backend: str
    """What computes the network."""
    stages_ms: dict[str, float]
    """Of all images of the last call: upload, preprocess, network, decode, download."""

    def __call__(
        self,
        images: Sequence[np.ndarray],
        cameras: Sequence[Camera],
        memory: Sequence[MapMemory] | None = None,
    ) -> list[Scene]:
        """One Scene per (H, W, 3) uint8 RGB image; cameras are valid and of the images' size.

        `memory`: in which the maps of each image may lie.
        """

    def close(self) -> None:
        """Free the memory."""


@contextmanager
def timed(stages_ms: dict[str, float], stage: str) -> Iterator[None]:
    """Add the milliseconds of the block under the name of its stage."""
    start = time.perf_counter()
    yield
    stages_ms[stage] = stages_ms.get(stage, 0.0) + (time.perf_counter() - start) * 1e3


def first_line(error: Exception) -> str:
    """Of the message; torch appends stack traces to some."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
