"""Copies of images on the host."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

COPIERS = 3
"""Threads that copy at the same time: one does not use up what the memory gives, and more than
these wait for each other (docs/speed.md)."""


class Copiers:
    """Threads that wait for images to copy."""

    def __init__(self) -> None:
        self._count = min(COPIERS, os.cpu_count() or 1)
        self._pool = ThreadPoolExecutor(self._count, 'copy')

    def __call__(self, places: Sequence[np.ndarray], images: Sequence[np.ndarray]) -> None:
        """Fill each place with the image of the same shape; numpy lets other threads run then."""
        parts = range(self._count)
        others = [self._pool.submit(self._copy, part, places, images) for part in parts[1:]]
        self._copy(0, places, images)
        for other in others:
            other.result()

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()

    def _copy(self, part: int, places: Sequence[np.ndarray], images: Sequence[np.ndarray]) -> None:
        """This part of the rows of each image."""
        for place, image in zip(places, images, strict=True):
            first, end = (len(image) * k // self._count for k in (part, part + 1))
            np.copyto(place[first:end], image[first:end])
