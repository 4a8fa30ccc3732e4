"""All ways of running one network that the benchmark compares, as runners."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from importlib.util import find_spec

import numpy as np
import torch

from tag_perception.config import InputError
from tag_perception.core import tasks
from tag_perception.core.network import Network
from tag_perception.core.preprocess import to_input, to_tensor, view_of
from tag_perception.core.structures import Camera, Scene
from tag_perception.runtime.cpu import BACKENDS, CpuRunner, has_bf16_tiles, multiplies_bf16
from tag_perception.runtime.cuda import CudaRunner, choose_backend
from tag_perception.runtime.int8 import to_int8
from tag_perception.runtime.onnx import OnnxTrunk
from tag_perception.runtime.runner import MapMemory, Runner, timed
from tag_perception.runtime.trunk import Trunk

EAGER = 'eager fp32'
"""The one that all others are measured against: the network as it is written."""


class EagerRunner:
    """core.inference.infer, stage by stage: no folding, no graph, every output everywhere."""

    backend = 'eager'

    def __init__(self, network: Network, device: torch.device, dtype: torch.dtype) -> None:
        self._network = network.to(device, dtype)
        self._device, self._dtype = device, dtype
        self.stages_ms: dict[str, float] = {}

    @torch.inference_mode()
    def __call__(
        self,
        images: Sequence[np.ndarray],
        cameras: Sequence[Camera],
        memory: Sequence[MapMemory] | None = None,
    ) -> list[Scene]:
        """One Scene per image; all of one size and channel order. `memory` is not used."""
        self.stages_ms.clear()
        size = self._network.config.input_size
        with self._timed('upload'):
            wrapped = [to_tensor(image) for image in images]
            pixels = torch.stack([picture for picture, _ in wrapped]).to(self._device)
            view = view_of(cameras, size, self._device)
        with self._timed('preprocess'):
            inputs = to_input(pixels, size, wrapped[0][1]).to(self._dtype).contiguous()
        # True fp32: TensorFloat-32 would round to 10 bits.
        with self._timed('network'), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            outputs = self._network(inputs)
        with self._timed('decode'):
            scene = tasks.decode(outputs, view)
        with self._timed('download'):
            scene = scene.cpu()
        return [scene[index] for index in range(len(images))]

    def close(self) -> None:
        """Free the weights."""
        del self._network

    def _timed(self, stage: str) -> _Synchronised:
        return _Synchronised(self.stages_ms, stage, self._device)


class _Synchronised:
    """`timed`, which on CUDA ends when the device has finished."""

    def __init__(self, stages_ms: dict[str, float], stage: str, device: torch.device) -> None:
        self._timer, self._device = timed(stages_ms, stage), device

    def __enter__(self) -> None:
        self._timer.__enter__()

    def __exit__(self, *exception: object) -> None:
        if self._device.type == 'cuda':
            torch.cuda.synchronize(self._device)
        self._timer.__exit__(None, None, None)


def build_contenders(network: Network, device: torch.device) -> dict[str, Runner]:
    """Everything that runs here by the name it has in tables; EAGER is the first."""
    found: dict[str, Runner]
    if device.type == 'cuda':
        half, bf16 = torch.float16, torch.bfloat16
        found = {
            EAGER: EagerRunner(deepcopy(network), device, torch.float32),
            'eager fp16': EagerRunner(deepcopy(network), device, half),
            'torch fp16, dense heads': CudaRunner(Trunk(network, False), device, half),
            'torch fp16': CudaRunner(Trunk(network), device, half),
            'torch.compile fp16': CudaRunner(Trunk(network), device, half, 'compiled'),
        }
        if choose_backend(device, half) == 'triton':
            found |= {
                'triton fp16, dense heads': CudaRunner(
                    Trunk(network, False), device, half, 'triton'
                ),
                'triton fp16': CudaRunner(Trunk(network), device, half, 'triton'),
                'triton bf16': CudaRunner(Trunk(network), device, bf16, 'triton'),
            }
        if find_spec('tensorrt'):
            found['tensorrt fp16'] = CudaRunner(Trunk(network), device, half, 'tensorrt')
        return found
    found = {EAGER: EagerRunner(network, device, torch.float32)}
    for name in BACKENDS:
        if name == 'torch' or find_spec(name):
            found[name] = CpuRunner.build(Trunk(network), name)
    dense = CpuRunner.build(Trunk(network, sparse=False))
    found[f'{dense.backend}, dense heads'] = dense
    if multiplies_bf16():
        found['torch bf16'] = CpuRunner.build(Trunk(network), 'torch', torch.bfloat16)
        if find_spec('openvino'):
            found['openvino bf16'] = CpuRunner.build(Trunk(network), 'openvino', torch.bfloat16)
    return found


def build_int8(network: Network, pictures: Sequence[np.ndarray]) -> dict[str, Runner]:
    """ONNX Runtime in 8-bit integers, calibrated on RGB pictures. Raises InputError."""
    trunk = Trunk(network)
    inputs = [to_input(to_tensor(p)[0][None], trunk.config.input_size) for p in pictures]
    try:
        model = to_int8(trunk, inputs)
        runner = CpuRunner(trunk, OnnxTrunk(trunk, model=model), 'onnxruntime')
    except ImportError as error:
        raise InputError(f'int8: {error}; install onnx and onnxruntime') from error
    return {'onnxruntime int8': runner}


def build_best(network: Network, device: torch.device) -> Runner:
    """What the engine takes there."""
    if device.type == 'cuda':
        half = torch.float16
        return CudaRunner(Trunk(network), device, half, choose_backend(device, half))
    dtype = torch.bfloat16 if has_bf16_tiles() else torch.float32
    return CpuRunner.build(Trunk(network), 'auto', dtype)
