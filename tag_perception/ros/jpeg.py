"""JPEG data → RGB pixels: on the GPU where a library can, with OpenCV otherwise.

Which one is decided once, by trying: a library that cannot be imported, or decodes a picture to
something else than OpenCV does, is not used.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from torch import Tensor

log = logging.getLogger(__name__)

MAGIC = b'\xff\xd8\xff'
"""How every JPEG begins."""
TOLERANCE = 8
"""Decoders round and interpolate colour differently, by some levels of 255."""

Decode = Callable[..., Tensor]
"""`decode(data, mode='RGB', device=…)` → (3, H, W) uint8 of a (N,) uint8 tensor on the host."""

LIBRARIES: dict[str, Callable[[], Decode]] = {
    'torchcodec': lambda: import_module('torchcodec.decoders').decode_jpeg,
    'torchvision': lambda: import_module('torchvision.io').decode_jpeg,
}
"""Libraries that decode with nvJPEG, by preference; torchvision's is deprecated."""


class JpegDecoder(Protocol):
    """Turns compressed data into pixels."""

    @property
    def name(self) -> str:
        """What decodes, and where; for diagnostics."""

    def __call__(self, data: np.ndarray) -> np.ndarray | None:
        """(H, W, 3) uint8 RGB of (N,) uint8 data; None where it is damaged."""


class OnCpu:
    """OpenCV, which also reads everything that is no JPEG."""

    name = 'OpenCV on the CPU'

    def __call__(self, data: np.ndarray) -> np.ndarray | None:
        """(H, W, 3) uint8 RGB, a view of BGR memory; None where the data is damaged."""
        flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION  # the calibration is not turned
        pixels = cv2.imdecode(data, flags)
        return None if pixels is None else pixels[..., ::-1]


class OnGpu:
    """A library with nvJPEG. What that cannot read is left to OpenCV, and counted."""

    def __init__(self, library: str, decode: Decode, device: str) -> None:
        self.left = 0
        """JPEG images so far that OpenCV had to decode."""
        self._library, self._decode, self._device = library, decode, device
        self._otherwise = OnCpu()

    @property
    def name(self) -> str:
        """The library, the device, and what was left to the CPU."""
        left = f'; {self.left} images left to OpenCV' if self.left else ''
        return f'{self._library} on {self._device}{left}'

    def __call__(self, data: np.ndarray) -> np.ndarray | None:
        """(H, W, 3) uint8 RGB on the host; None where the data is damaged."""
        if data[: len(MAGIC)].tobytes() != MAGIC:
            return self._otherwise(data)
        try:
            return self.decode(data)
        except RuntimeError:  # progressive or CMYK for some, damaged for all
            self.left += 1
            return self._otherwise(data)

    def decode(self, data: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 RGB on the host. Raises what the library raises."""
        pixels = self._decode(torch.from_numpy(data.copy()), mode='RGB', device=self._device)
        return pixels.permute(1, 2, 0).contiguous().cpu().numpy()


def choose_decoder(
    device: str, libraries: Mapping[str, Callable[[], Decode]] | None = None
) -> JpegDecoder:
    """The decoder for an engine on `device` (cuda:0 or cpu); says in the log why not the GPU."""
    if not device.startswith('cuda'):
        return OnCpu()
    reasons = []
    for library, find in (LIBRARIES if libraries is None else libraries).items():
        try:
            decoder = OnGpu(library, find(), device)
            fault = _fault(decoder)
        except Exception as error:  # a broken installation raises nearly anything
            fault = f'{type(error).__name__}: {error}'.splitlines()[0]
        if fault is None:
            return decoder
        reasons.append(f'{library}: {fault}')
    log.info('JPEG is decoded on the CPU (%s)', '; '.join(reasons))
    return OnCpu()


def _fault(decoder: OnGpu) -> str | None:
    """What is wrong with the pixels of a picture that has every colour, or None."""
    ramp = np.linspace(0, 255, 64, dtype=np.uint8)
    picture = np.dstack((*np.meshgrid(ramp, ramp[:48]), np.full((48, 64), 99, np.uint8)))
    data: Any = cv2.imencode('.jpg', picture)[1].ravel()
    expected, found = OnCpu()(data), decoder.decode(data)
    assert expected is not None
    if found.shape != expected.shape or found.dtype != np.uint8:
        return f'decodes to {found.dtype} {found.shape}'
    worst = int(np.abs(found.astype(int) - expected).max())
    return f'differs by {worst} of 255 from OpenCV' if worst > TOLERANCE else None
