"""The engine: load a checkpoint, warm up, then image → Scene, on CUDA where there is one.

Without a checkpoint it runs a preset with random weights and says so ("UNTRAINED"). What it really
runs on stands in `engine.status`, never only what was asked for.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch

from tag_perception.config import InputError
from tag_perception.core import checkpoint, tasks
from tag_perception.core.network import PRESETS, Network, NetworkConfig, build_network
from tag_perception.core.preprocess import to_input, to_tensor, view_of
from tag_perception.core.structures import Camera, Objects3D, Scene

log = logging.getLogger(__name__)

UNTRAINED = 'UNTRAINED'
DTYPES = {'fp32': torch.float32, 'fp16': torch.float16, 'bf16': torch.bfloat16}


@dataclass(frozen=True)
class EngineConfig:
    """What to run and where."""

    checkpoint: str = ''
    """Checkpoint file; empty: the preset with random weights, reported as UNTRAINED."""
    preset: str = 'tag_slim'
    """Network built when there is no checkpoint; a name in `core.network.PRESETS`."""
    device: Literal['auto', 'cuda', 'cpu'] = 'auto'
    """auto: CUDA where there is one."""
    precision: Literal['auto', 'fp32', 'fp16', 'bf16'] = 'auto'
    """auto: fp16 on CUDA, fp32 on the CPU."""
    on_no_gpu: Literal['error', 'warn', 'ignore'] = 'warn'
    """What to do when the CPU has to be used although the device is not `cpu`."""
    score_threshold: float = 0.3
    """Boxes with a lower score are dropped, 0…1."""

    def __post_init__(self) -> None:
        if not 0 <= self.score_threshold <= 1:
            raise InputError(f'score_threshold {self.score_threshold} is outside [0, 1]')
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


class Engine:
    """`engine(image, camera) → Scene` on the host; one image at a time, not thread-safe."""

    def __init__(self, config: EngineConfig) -> None:
        """Load and warm up. Raises InputError: bad checkpoint, or no CUDA and on_no_gpu error."""
        self.config = config
        self.device, fallback = _choose_device(config)
        precision = config.precision
        if precision == 'auto':
            precision = 'fp16' if self.device.type == 'cuda' else 'fp32'
        self.dtype = DTYPES[precision]
        network, loaded = _load(config)
        self.network = network.eval().to(
            self.device, self.dtype, memory_format=torch.channels_last
        )
        self.status = EngineStatus(
            device=str(self.device),
            device_name=_device_name(self.device),
            precision=precision,
            checkpoint=f'{config.checkpoint} ({loaded.sha256[:12]})'
            if loaded
            else f'{UNTRAINED} {config.preset}',
            trained=loaded is not None,
            network=network.config,
            fallback=fallback,
            metadata=loaded.metadata if loaded else {},
        )
        self.stages_ms: dict[str, float] = {}
        """Of the last call: upload, preprocess, network, decode, download."""
        self._warm_up()

    def __call__(self, image: np.ndarray, camera: Camera | None) -> Scene:
        """Scene of one (H, W, 3) uint8 RGB image, at its size, on the host.

        `detection3d` is None where `camera` is None or has a fault: without calibration a box has
        no place. Raises ValueError where the camera is of another size than the image.
        """
        height, width = image.shape[:2]
        usable = camera is not None and camera.fault() is None
        if camera is None or not usable:
            camera = Camera(width, height, fx=width, fy=width, u0=width / 2, v0=height / 2)
        if (camera.height, camera.width) != (height, width):
            raise ValueError(
                f'camera is {camera.width}×{camera.height}, image is {width}×{height}'
            )
        scene = self._infer(image, camera)
        boxes = _above(scene.detection3d, self.config.score_threshold) if usable else None
        return Scene(semantic=scene.semantic, depth=scene.depth, detection3d=boxes)

    @torch.inference_mode()
    def _infer(self, image: np.ndarray, camera: Camera) -> Scene:
        size = self.network.config.input_size
        with self._stage('upload'):
            memory, bgr = to_tensor(image)
            images = memory.to(self.device)[None]
            view = view_of([camera], size, self.device)
        with self._stage('preprocess'):
            inputs = to_input(images, size, bgr).to(self.dtype)
        with self._stage('network'):
            outputs = self.network(inputs)
        with self._stage('decode'):
            scene = tasks.decode(outputs, view)[0]
        with self._stage('download'):
            return scene.cpu()

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        if self.device.type == 'cuda':
            torch.cuda.synchronize(self.device)
        self.stages_ms[name] = (time.perf_counter() - start) * 1e3

    def _warm_up(self) -> None:
        height, width = self.network.config.input_size
        camera = Camera(width, height, fx=width, fy=width, u0=width / 2, v0=height / 2)
        for _ in range(2):
            self(np.zeros((height, width, 3), np.uint8), camera)


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


def _load(config: EngineConfig) -> tuple[Network, checkpoint.Checkpoint | None]:
    if config.checkpoint:
        loaded = checkpoint.load(config.checkpoint)
        return loaded.network, loaded
    log.warning('%s: no checkpoint given, %s has random weights', UNTRAINED, config.preset)
    torch.manual_seed(0)  # the same nonsense every time
    return build_network(PRESETS[config.preset]), None


def _device_name(device: torch.device) -> str:
    if device.type == 'cuda':
        return torch.cuda.get_device_name(device)
    return f'CPU, {torch.get_num_threads()} threads'


def _above(boxes: Objects3D | None, threshold: float) -> Objects3D | None:
    return None if boxes is None else boxes[boxes.score >= threshold]
