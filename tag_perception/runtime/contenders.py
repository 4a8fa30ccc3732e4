"""All ways of running one network that the benchmark compares, as runners."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor

from tag_perception.core import tasks
from tag_perception.core.network import Network
from tag_perception.core.preprocess import to_input, to_tensor, view_of
from tag_perception.core.structures import Camera, Scene
from tag_perception.runtime.cpu import CpuRunner
from tag_perception.runtime.cuda import CudaRunner
from tag_perception.runtime.onnx import to_onnx
from tag_perception.runtime.runner import Runner, timed
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
    def __call__(self, images: Sequence[np.ndarray], cameras: Sequence[Camera]) -> list[Scene]:
        """One Scene per image; all of one size and channel order."""
        size = self._network.config.input_size
        with self._timed('upload'):
            wrapped = [to_tensor(image) for image in images]
            pixels = torch.stack([memory for memory, _ in wrapped]).to(self._device)
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


class OpenVinoRunner(CpuRunner):
    """The CPU runner with OpenVINO in the place of ONNX Runtime."""

    def __init__(self, trunk: Trunk) -> None:
        import openvino

        core = openvino.Core()
        model = core.read_model(to_onnx(trunk, trunk.names))
        settings = {
            'INFERENCE_NUM_THREADS': torch.get_num_threads(),
            'PERFORMANCE_HINT': 'LATENCY',
            'INFERENCE_PRECISION_HINT': 'f32',
        }
        self._compiled = core.compile_model(model, 'CPU', settings)
        self._names = trunk.names
        super().__init__(trunk, 'torch')
        self._network, self.backend = self._run, 'openvino'

    def _run(self, image: Tensor) -> dict[str, Tensor]:
        values = self._compiled([image.contiguous().numpy()], share_inputs=True)
        return {name: torch.from_numpy(values[name]) for name in self._names}

    def close(self) -> None:
        """Free the weights."""
        del self._compiled
        super().close()


def build_contenders(network: Network, device: torch.device) -> dict[str, Runner]:
    """Everything that runs here by the name it has in tables; EAGER is the first."""
    if device.type == 'cuda':
        return {
            EAGER: EagerRunner(deepcopy(network), device, torch.float32),
            'eager fp16': EagerRunner(deepcopy(network), device, torch.float16),
            'graph fp16, dense heads': CudaRunner(Trunk(network, False), device, torch.float16),
            'graph fp16': CudaRunner(Trunk(network), device, torch.float16),
            'graph bf16': CudaRunner(Trunk(network), device, torch.bfloat16),
        }
    found: dict[str, Runner] = {
        EAGER: EagerRunner(network, device, torch.float32),
        'torch': CpuRunner(Trunk(network), 'torch'),
    }
    for name, build in {
        'onnxruntime, dense heads': lambda: CpuRunner(Trunk(network, False), 'onnxruntime'),
        'onnxruntime': lambda: CpuRunner(Trunk(network), 'onnxruntime'),
        'openvino': lambda: OpenVinoRunner(Trunk(network)),
    }.items():
        if _is_installed(name.split(',')[0]):
            found[name] = build()
    return found


def build_best(network: Network, device: torch.device) -> Runner:
    """What the engine takes there."""
    if device.type == 'cuda':
        return CudaRunner(Trunk(network), device, torch.float16)
    return CpuRunner(Trunk(network), 'auto')


def _is_installed(package: str) -> bool:
    return find_spec(package) is not None
