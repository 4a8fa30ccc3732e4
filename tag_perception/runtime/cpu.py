"""Images to Scenes on the CPU: one image at a time, which is as fast as a batch there.

Which backend is the fastest depends on the CPU: on one without AMX they are a few per cent apart,
on one with it OpenVINO in bf16 takes a quarter of the time of ONNX Runtime. So they race, once
for each network on each machine, and the cache keeps the winner's name.
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from tag_perception.config import InputError
from tag_perception.core.preprocess import to_input, to_tensor, view_of
from tag_perception.core.structures import Camera, Scene
from tag_perception.runtime import cache
from tag_perception.runtime.decoding import decode_boxes
from tag_perception.runtime.machine import cpu_flags, cpu_name, package_version
from tag_perception.runtime.maps import decode_maps
from tag_perception.runtime.onnx import OnnxTrunk, code_digest, digest
from tag_perception.runtime.openvino import OpenVinoTrunk
from tag_perception.runtime.runner import MapMemory, timed
from tag_perception.runtime.trunk import Trunk

log = logging.getLogger(__name__)

CpuNetwork = Callable[[Tensor], dict[str, Tensor]]
"""Float32 outputs by name of a normalised image (1, 3, H, W); the next call may overwrite them."""

ROUNDS = 5
"""Passes of each backend in the race; the shortest of each counts."""


class TorchTrunk:
    """The trunk in torch, channels last."""

    def __init__(self, trunk: Trunk, dtype: torch.dtype) -> None:
        self._dtype = dtype
        own = copy.deepcopy(trunk)
        own.peak_head = None  # that one reads float32
        self._trunk = own.to(dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def __call__(self, image: Tensor) -> dict[str, Tensor]:
        """Float32 outputs by name."""
        outputs = self._trunk(image.to(self._dtype))
        return {n: o.float() for n, o in zip(self._trunk.names, outputs, strict=True)}


BACKENDS: dict[str, Callable[[Trunk, torch.dtype], CpuNetwork]] = {
    'openvino': OpenVinoTrunk,
    'onnxruntime': OnnxTrunk,
    'torch': TorchTrunk,
}


class CpuRunner:
    """The trunk in one of BACKENDS, and the rest in torch. Made by `build`."""

    def __init__(self, trunk: Trunk, network: CpuNetwork, backend: str) -> None:
        """`network` computes the trunk; `backend` is its name."""
        self._size = trunk.config.input_size
        self._peak_head = trunk.peak_head
        self._network, self.backend = network, backend
        self.stages_ms: dict[str, float] = {}

    @classmethod
    def build(
        cls, trunk: Trunk, backend: str = 'auto', dtype: torch.dtype = torch.float32
    ) -> CpuRunner:
        """`backend` is a name in BACKENDS, or auto for the fastest of them.

        Raises InputError where it cannot run the network in `dtype`.
        """
        if backend == 'auto':
            return cls(trunk, *fastest(trunk, dtype))
        return cls(trunk, *_build(backend, trunk, dtype))

    @torch.inference_mode()
    def __call__(
        self,
        images: Sequence[np.ndarray],
        cameras: Sequence[Camera],
        memory: Sequence[MapMemory] | None = None,
    ) -> list[Scene]:
        """One Scene per (H, W, 3) uint8 RGB image; cameras are valid and of the images' size.

        `memory`: where the maps of each image lie.
        """
        self.stages_ms.clear()
        places = [None] * len(images) if memory is None else memory
        return [self._infer(*each) for each in zip(images, cameras, places, strict=True)]

    def close(self) -> None:
        """Free the weights."""
        del self._network, self._peak_head

    def _infer(self, image: np.ndarray, camera: Camera, memory: MapMemory | None) -> Scene:
        with timed(self.stages_ms, 'upload'):
            pixels, bgr = to_tensor(image)
            view = view_of([camera], self._size, 'cpu')
        with timed(self.stages_ms, 'preprocess'):
            inputs = to_input(pixels[None], self._size, bgr)
        with timed(self.stages_ms, 'network'):
            outputs = self._network(inputs)
        with timed(self.stages_ms, 'decode'):
            boxes = decode_boxes(outputs, self._peak_head, view)
            scene = decode_maps(outputs, memory or MapMemory.of_size(view.image_size))
            scene = replace(scene, detection3d=None if boxes is None else boxes[0])
        with timed(self.stages_ms, 'download'):
            return scene


def multiplies_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware; others emulate it, slower than float32."""
    return not {'amx_bf16', 'avx512_bf16'}.isdisjoint(cpu_flags())


def has_bf16_tiles() -> bool:
    """Whether bfloat16 is many times faster than float32 on this CPU (AMX)."""
    return 'amx_bf16' in cpu_flags()


def fastest(trunk: Trunk, dtype: torch.dtype) -> tuple[CpuNetwork, str]:
    """What runs the trunk fastest here, and its name: measured once, then remembered."""
    made_with = {
        'CPU': cpu_name(),
        'number of threads': str(torch.get_num_threads()),
        'network code': code_digest(),
        'torch': torch.__version__,
        **{name: package_version(name) or 'none' for name in BACKENDS if name != 'torch'},
    }
    return cache.fetch(
        f'{digest(trunk)}-{str(dtype).removeprefix("torch.")}.fastest',
        made_with,
        make=lambda: _race(trunk, dtype).encode(),
        read=lambda name: _build(name.decode(), trunk, dtype),
    )


@torch.inference_mode()
def _race(trunk: Trunk, dtype: torch.dtype) -> str:
    """The backends take turns with one image, so that a disturbance meets them all."""
    entrants: dict[str, CpuNetwork] = {}
    for name in BACKENDS:
        try:
            entrants[name], _ = _build(name, trunk, dtype)
        except InputError as error:
            log.info('%s', error.__cause__)
    image = torch.zeros(1, 3, *trunk.config.input_size)
    image = image.contiguous(memory_format=torch.channels_last)
    times_ms: dict[str, list[float]] = {name: [] for name in entrants}
    for _ in range(ROUNDS):
        for name, network in entrants.items():
            start = time.perf_counter()
            network(image)
            times_ms[name].append((time.perf_counter() - start) * 1e3)
    shortest = {name: min(times) for name, times in times_ms.items()}
    log.info('network in %s', ', '.join(f'{n}: {ms:.1f} ms' for n, ms in shortest.items()))
    return min(shortest, key=shortest.__getitem__)


def _build(name: str, trunk: Trunk, dtype: torch.dtype) -> tuple[CpuNetwork, str]:
    try:
        return BACKENDS[name](trunk, dtype), name
    except (ImportError, InputError) as error:
        remedy = f'install {name}, or set backend to auto or torch'
        raise InputError(f'{name} cannot run this network: {error}; {remedy}') from error
