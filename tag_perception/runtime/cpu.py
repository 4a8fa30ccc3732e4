"""Images to Scenes on the CPU: one image at a time, which is as fast as a batch there."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from tag_perception.config import InputError
from tag_perception.core.preprocess import to_input, to_tensor, view_of
from tag_perception.core.structures import Camera, Scene
from tag_perception.runtime.decoding import decode
from tag_perception.runtime.labelling import labels_at
from tag_perception.runtime.onnx import OnnxTrunk
from tag_perception.runtime.runner import timed
from tag_perception.runtime.trunk import Trunk

log = logging.getLogger(__name__)


class CpuRunner:
    """The trunk in ONNX Runtime, or in torch where that is missing, and the rest in torch."""

    def __init__(self, trunk: Trunk, backend: Literal['auto', 'torch', 'onnxruntime']) -> None:
        """Raises InputError where `backend` is onnxruntime and that cannot run the network."""
        self._size = trunk.config.input_size
        self._peak_head = trunk.peak_head
        self._network, self.backend = _choose_backend(trunk, backend)
        self.stages_ms: dict[str, float] = {}

    @torch.inference_mode()
    def __call__(self, images: Sequence[np.ndarray], cameras: Sequence[Camera]) -> list[Scene]:
        """One Scene per (H, W, 3) uint8 RGB image; cameras are valid and of the images' size."""
        return [self._infer(*pair) for pair in zip(images, cameras, strict=True)]

    def close(self) -> None:
        """Free the weights."""
        del self._network, self._peak_head

    def _infer(self, image: np.ndarray, camera: Camera) -> Scene:
        with timed(self.stages_ms, 'upload'):
            memory, bgr = to_tensor(image)
            view = view_of([camera], self._size, 'cpu')
        with timed(self.stages_ms, 'preprocess'):
            inputs = to_input(memory[None], self._size, bgr)
        with timed(self.stages_ms, 'network'):
            outputs = self._network(inputs)
        with timed(self.stages_ms, 'decode'):
            scene = decode(outputs, self._peak_head, view, labels_at)[0]
        with timed(self.stages_ms, 'download'):
            return scene


def _choose_backend(
    trunk: Trunk, backend: str
) -> tuple[Callable[[Tensor], dict[str, Tensor]], str]:
    if backend != 'torch':
        try:
            return OnnxTrunk(trunk), 'onnxruntime'
        except (ImportError, InputError) as error:
            reason = f'onnxruntime cannot run this network: {error}'
            if backend == 'onnxruntime':
                remedy = 'install onnxruntime, or set backend to torch'
                raise InputError(f'{reason}; {remedy}') from error
            log.warning('%s; torch does, up to twice slower', reason)
    trunk = trunk.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return lambda image: dict(zip(trunk.names, trunk(image), strict=True)), 'torch'
