"""The engine: load a checkpoint, warm up, then image → Scene, on CUDA where there is one.

Without trained weights it runs a preset with random ones and says so ("UNTRAINED"). What it really
runs on stands in `engine.status`, never only what was asked for.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch

from tag_perception.config import InputError
from tag_perception.core import checkpoint
from tag_perception.core.network import PRESETS, Network, NetworkConfig, build_network
from tag_perception.core.structures import Camera, Scene
from tag_perception.runtime.cpu import CpuRunner, multiplies_bf16
from tag_perception.runtime.cuda import CudaRunner, choose_backend
from tag_perception.runtime.runner import EngineFailure, MapMemory, Runner, first_line
from tag_perception.runtime.trunk import Trunk
from tag_perception.share import shared_file

log = logging.getLogger(__name__)

UNTRAINED = 'UNTRAINED'
AUTO, RANDOM = 'auto', 'random'
SHIPPED = {'tag_slim': 'tag_slim_street.safetensors'}
"""Preset → its trained weights in models/."""
LARGEST_BATCH = {'cuda': 8, 'cpu': 1}
"""Images that gain from sharing a pass; on a CPU the first would only wait for the others."""
CUDA_ONLY = ('triton', 'tensorrt')
DTYPES = {'fp32': torch.float32, 'fp16': torch.float16, 'bf16': torch.bfloat16}


@dataclass(frozen=True)
class EngineConfig:
    """What to run and where."""

    checkpoint: str = AUTO
    """Checkpoint file; auto: the weights that ship for the preset, if any; random: none, reported
    as UNTRAINED."""
    preset: str = 'tag_slim'
    """Network to run when no checkpoint file is given; a name in `core.network.PRESETS`."""
    device: Literal['auto', 'cuda', 'cpu'] = 'auto'
    """auto: CUDA where there is one."""
    precision: Literal['auto', 'fp32', 'fp16', 'bf16'] = 'auto'
    """auto: fp16 on CUDA, fp32 on the CPU; bf16 is three to five times as fast on one with AMX,
    and changes up to 1 % of the labels."""
    backend: Literal['auto', 'triton', 'torch', 'tensorrt', 'onnxruntime', 'openvino'] = 'auto'
    """What computes the network: on CUDA triton (auto, from Hopper on), torch (auto elsewhere) or
    tensorrt, on the CPU torch, onnxruntime or openvino; auto takes there what proves to be
    fastest."""
    on_no_gpu: Literal['error', 'warn', 'ignore'] = 'warn'
    """What to do when the CPU has to be used although the device is not `cpu`."""
    score_threshold: float = 0.2
    """Boxes with a lower score are dropped, 0…1."""

    def __post_init__(self) -> None:
        if not 0 <= self.score_threshold <= 1:
            raise InputError(f'score_threshold {self.score_threshold} is outside [0, 1]')
        if not self.checkpoint:
            raise InputError('checkpoint is empty: give a file, auto or random')
        if self.preset not in PRESETS:
            raise InputError(f'preset {self.preset!r} is not one of {", ".join(PRESETS)}')


@dataclass(frozen=True)
class EngineStatus:
    """What is really running."""

    device: str
    """cuda:0 or cpu."""
    device_name: str
    """Name of the GPU or number of CPU threads."""
    precision: str
    """fp32, fp16 or bf16."""
    checkpoint: str
    """File and the first digits of its SHA-256, or UNTRAINED with the preset."""
    trained: bool
    network: NetworkConfig
    fallback: str | None
    """Why this is not the device that was asked for, or None."""
    metadata: dict = field(default_factory=dict)
    """What the checkpoint says of itself (step, scores)."""
    backend: str = 'torch'
    """What computes the network: (triton or tensorrt, ) cuda graph, torch, onnxruntime or
    openvino."""
    largest_batch: int = 1
    """Images that gain from sharing a pass."""

    @property
    def on_gpu(self) -> bool:
        """Whether a pass leaves the cores of the CPU to others."""
        return self.device.startswith('cuda')


class Engine:
    """`engine(image, camera) → Scene` on the host. One thread at a time may call it."""

    def __init__(self, config: EngineConfig, *, sparse_heads: bool = True) -> None:
        """Load and warm up. Raises InputError: bad checkpoint, or no CUDA and on_no_gpu error.

        Without `sparse_heads` every sub-head of detection is computed in every cell, which only
        measurements want.
        """
        self.config = config
        self.rebuilds = 0
        """How often an error of the GPU made it start anew."""
        self.problem: str | None = None
        """Why the last call raised EngineFailure; None after one that did not."""
        self._sparse_heads = sparse_heads
        self._device, fallback = _choose_device(config)
        self._precision = _choose_precision(config, self._device, fallback)
        network, loaded = _load(config)
        self._runner: Runner | None = self._build(network)
        self.status = EngineStatus(
            device=str(self._device),
            device_name=_device_name(self._device),
            precision=self._precision,
            checkpoint=f'{trained_weights(config)} ({loaded.sha256[:12]})'
            if loaded
            else f'{UNTRAINED} {config.preset}',
            trained=loaded is not None,
            network=network.config,
            fallback=fallback,
            metadata=loaded.metadata if loaded else {},
            backend=self._runner.backend,
            largest_batch=LARGEST_BATCH[self._device.type],
        )

    def __call__(self, image: np.ndarray, camera: Camera | None) -> Scene:
        """Scene of one (H, W, 3) uint8 RGB image, at its size, on the host.

        `detection3d` is None where `camera` is None or has a fault: without calibration a box has
        no place. Raises ValueError where the camera is of another size than the image, and
        EngineFailure where the GPU fails twice or has too little memory.
        """
        return self.batch([image], [camera])[0]

    def batch(
        self,
        images: Sequence[np.ndarray],
        cameras: Sequence[Camera | None],
        memory: Sequence[MapMemory] | None = None,
    ) -> list[Scene]:
        """A Scene for each image; on CUDA, images of one size share a pass.

        `memory` is offered for the maps of each image. Where that saves copies, on the CPU, those
        of the Scene lie there.
        """
        usable = [camera is not None and camera.fault() is None for camera in cameras]
        filled = [
            _checked(image, camera if ok else None)
            for image, camera, ok in zip(images, cameras, usable, strict=True)
        ]
        scenes = self._run(images, filled, memory)
        return [self._finished(scene, ok) for scene, ok in zip(scenes, usable, strict=True)]

    def prepare(self, together: int) -> None:
        """Warm up passes of up to `together` images, of the network's size.

        On CUDA the first pass of each count takes seconds, or a minute where kernels have to be
        built, which is better spent before images come. Raises EngineFailure as a call does.
        """
        height, width = self.status.network.input_size
        for count in range(2, min(together, self.status.largest_batch) + 1):
            self.batch([np.zeros((height, width, 3), np.uint8)] * count, [None] * count)

    @property
    def stages_ms(self) -> dict[str, float]:
        """Of the last call: upload, preprocess, network, decode, download."""
        return {} if self._runner is None else self._runner.stages_ms

    def close(self) -> None:
        """Free weights and buffers; the engine cannot be called any more."""
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.close()

    def _run(
        self,
        images: Sequence[np.ndarray],
        cameras: Sequence[Camera],
        memory: Sequence[MapMemory] | None,
    ) -> list[Scene]:
        try:
            scenes = self._run_or_rebuild(images, cameras, memory)
        except EngineFailure as error:
            self.problem = str(error)
            raise
        self.problem = None
        return scenes

    def _run_or_rebuild(
        self,
        images: Sequence[np.ndarray],
        cameras: Sequence[Camera],
        memory: Sequence[MapMemory] | None,
    ) -> list[Scene]:
        if self._runner is None:
            raise EngineFailure(self.problem or 'the engine is closed')
        try:
            return self._runner(images, cameras, memory)
        except EngineFailure:
            raise
        except RuntimeError as error:
            if self._device.type == 'cpu':
                raise
            log.error('%s; rebuilding the engine', first_line(error))
        self.rebuilds += 1
        try:
            self.close()
            runner = self._build(_load(self.config)[0])
            scenes = runner(images, cameras, memory)
        except (RuntimeError, InputError) as error:
            raise EngineFailure(
                f'{first_line(error)}, also after the engine was rebuilt; restart the process'
            ) from error
        self._runner = runner
        return scenes

    def _build(self, network: Network) -> Runner:
        trunk = Trunk(network, sparse=self._sparse_heads)
        runner: Runner
        dtype, asked = DTYPES[self._precision], self.config.backend
        if self._device.type == 'cuda':
            backend = choose_backend(self._device, dtype, asked)
            runner = CudaRunner(trunk, self._device, dtype, backend)
        else:  # perhaps in the place of CUDA
            runner = CpuRunner.build(trunk, 'auto' if asked in CUDA_ONLY else asked, dtype)
        height, width = network.config.input_size
        runner([np.zeros((height, width, 3), np.uint8)], [_without_calibration(height, width)])
        return runner

    def _finished(self, scene: Scene, calibrated: bool) -> Scene:
        boxes = scene.detection3d if calibrated else None
        if boxes is not None:
            boxes = boxes[boxes.score >= self.config.score_threshold]
        return replace(scene, detection3d=boxes)


def _checked(image: np.ndarray, camera: Camera | None) -> Camera:
    height, width = image.shape[:2]
    if camera is None:
        return _without_calibration(height, width)
    if (camera.height, camera.width) != (height, width):
        raise ValueError(f'camera is {camera.width}×{camera.height}, image is {width}×{height}')
    return camera


def _without_calibration(height: int, width: int) -> Camera:
    """Stands in where boxes are not asked for."""
    return Camera(width, height, fx=width, fy=width, u0=width / 2, v0=height / 2)


def _choose_device(config: EngineConfig) -> tuple[torch.device, str | None]:
    if config.device == 'cpu':
        return torch.device('cpu'), None
    if torch.cuda.is_available():
        return torch.device('cuda:0'), None
    reason = f'no CUDA device is available (device: {config.device}); running on the CPU'
    if config.on_no_gpu == 'error':
        raise InputError(
            f'no CUDA device is available (device: {config.device}); '
            'set device to cpu, or on_no_gpu to warn'
        )
    if config.on_no_gpu == 'warn':
        log.warning(reason)
    return torch.device('cpu'), reason


def _choose_precision(
    config: EngineConfig, device: torch.device, fallback: str | None
) -> Literal['fp32', 'fp16', 'bf16']:
    if device.type == 'cuda':
        if config.backend in ('onnxruntime', 'openvino'):
            remedy = 'set backend to auto, triton, torch or tensorrt'
            raise InputError(f'backend {config.backend} is for the CPU; {remedy}')
        return 'fp16' if config.precision == 'auto' else config.precision
    if config.backend in CUDA_ONLY and fallback is None:
        raise InputError(f'backend {config.backend} needs CUDA; on the CPU set backend to auto')
    asked = config.precision
    if asked == 'fp16' or (asked == 'bf16' and not multiplies_bf16()):
        if fallback is None:
            where = 'CUDA' if asked == 'fp16' else 'CUDA, or a CPU with AMX or AVX512-BF16'
            raise InputError(f'precision {asked} needs {where}; on this CPU set auto or fp32')
        asked = 'auto'
    return 'fp32' if asked == 'auto' else asked


def trained_weights(config: EngineConfig) -> str | None:
    """The checkpoint file to run; None: random weights.

    Raises InputError where the weights that should ship are not installed.
    """
    if config.checkpoint == RANDOM or (config.checkpoint == AUTO and config.preset not in SHIPPED):
        return None
    if config.checkpoint == AUTO:
        return str(shared_file('models', SHIPPED[config.preset]))
    return config.checkpoint


def _load(config: EngineConfig) -> tuple[Network, checkpoint.Checkpoint | None]:
    weights = trained_weights(config)
    if weights is not None:
        loaded = checkpoint.load(weights)
        return loaded.network, loaded
    log.warning('%s: no trained weights for %s, it has random ones', UNTRAINED, config.preset)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the same nonsense every time
        return build_network(PRESETS[config.preset]), None


def _device_name(device: torch.device) -> str:
    if device.type == 'cuda':
        return torch.cuda.get_device_name(device)
    return f'CPU, {torch.get_num_threads()} threads'
