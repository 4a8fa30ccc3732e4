"""TensorRT, where it is installed: the network as a plan built for one GPU, kept in the cache.

The types in the ONNX file are those of the plan (a strongly typed network), so that it computes in
the precision that the engine says. A plan holds one image: a batch runs it image by image inside
the same CUDA graph, because a plan for each size of a batch would be built, for minutes, in the
middle of the work.
"""

from __future__ import annotations

import copy
import logging
import time
from typing import Any

import torch
from torch import Tensor

from tag_perception.config import InputError
from tag_perception.runtime import cache
from tag_perception.runtime.onnx import code_digest, digest, to_onnx
from tag_perception.runtime.trunk import Trunk

log = logging.getLogger(__name__)

REPORT_EVERY_S = 5.0
WORKSPACE_BYTES = 2**31
"""What a kernel may use while TensorRT tries it."""


class TensorRtTrunk:
    """A trunk as a TensorRT plan for one input size; a call works on the current CUDA stream."""

    def __init__(self, trunk: Trunk, device: torch.device, dtype: torch.dtype) -> None:
        """`trunk` is on the CPU. Raises InputError without tensorrt, or where it refuses."""
        try:
            import tensorrt
        except ImportError as error:
            raise InputError(
                f'backend tensorrt: {error}; install tensorrt, or set backend to auto or torch'
            ) from error
        self._device, self._dtype, self._names = device, dtype, trunk.names
        self._logger = _logger(tensorrt)
        self._runtime = tensorrt.Runtime(self._logger)
        self._engine = cache.fetch(
            f'{digest(trunk)}-{_name(dtype)}.plan',
            {
                'GPU': _gpu(device),
                'tensorrt': tensorrt.__version__,
                'torch': torch.__version__,
                'network code': code_digest(),
            },
            make=lambda: _build(tensorrt, self._logger, trunk, dtype),
            read=self._read,
        )
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise torch.OutOfMemoryError('TensorRT has no memory for its plan')

    def __call__(self, images: Tensor) -> tuple[Tensor, ...]:
        """The trunk's outputs, in its order, of normalised images (B, 3, H, W)."""
        single = [self._run(image[None].contiguous()) for image in images.to(self._dtype)]
        return tuple(torch.cat(outputs) for outputs in zip(*single, strict=True))

    def _run(self, image: Tensor) -> list[Tensor]:
        outputs = [
            torch.empty(
                tuple(self._engine.get_tensor_shape(name)), dtype=self._dtype, device=self._device
            )
            for name in self._names
        ]
        for name, tensor in zip(('image', *self._names), (image, *outputs), strict=True):
            self._context.set_tensor_address(name, tensor.data_ptr())
        if not self._context.execute_async_v3(torch.cuda.current_stream().cuda_stream):
            raise RuntimeError(f'TensorRT: {self._logger.last_error or "the plan does not run"}')
        return outputs

    def _read(self, plan: bytes) -> Any:
        engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            reason = self._logger.last_error or 'no reason given'
            raise InputError(f'TensorRT cannot load the plan: {reason}')
        return engine


class Progress:
    """Says, every few seconds, how far a build is, which takes minutes."""

    def __init__(self) -> None:
        self._steps: dict[str, int] = {}
        self._outer: str | None = None
        self._said_s = time.monotonic()

    def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
        """Of the nested phases only the outermost are counted."""
        if not parent:
            self._outer, self._steps[phase] = phase, steps

    def step_complete(self, phase: str, step: int) -> bool:
        """True: go on."""
        if phase == self._outer and time.monotonic() - self._said_s >= REPORT_EVERY_S:
            self._said_s = time.monotonic()
            log.info('TensorRT, %s: %d of %d steps', phase, step + 1, self._steps[phase])
        return True

    def phase_finish(self, phase: str) -> None:
        """The phase has ended, perhaps before its last step."""
        self._steps.pop(phase, None)


def _build(tensorrt: Any, logger: Any, trunk: Trunk, dtype: torch.dtype) -> bytes:
    """The plan. Raises InputError with what TensorRT says."""
    start = time.monotonic()
    log.info('building a TensorRT plan, which takes minutes; later starts read it')
    typed = copy.deepcopy(trunk).to(dtype)
    builder = tensorrt.Builder(logger)
    flag = int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(1 << flag)
    parser = tensorrt.OnnxParser(network, logger)
    if not parser.parse(to_onnx(typed, typed.names)):
        raise _refusal(str(parser.get_error(0)))
    config = builder.create_builder_config()
    config.set_memory_pool_limit(tensorrt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    if dtype == torch.float32:
        config.clear_flag(tensorrt.BuilderFlag.TF32)  # which rounds to 10 bits
    monitor = _monitor(tensorrt)  # has to live as long as the build
    config.progress_monitor = monitor
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise _refusal(logger.last_error or 'no reason given')
    log.info('built the TensorRT plan in %.0f s', time.monotonic() - start)
    return bytes(plan)


def _refusal(reason: str) -> InputError:
    line = ' '.join(reason.split())
    return InputError(f'TensorRT cannot run this network: {line}; set backend to auto or torch')


def _logger(tensorrt: Any) -> Any:
    """What TensorRT says, in our log, and its last error for our own message."""

    class Logger(tensorrt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            tensorrt.ILogger.__init__(self)
            self.last_error = ''

        def log(self, severity: Any, message: str) -> None:
            kinds = tensorrt.ILogger.Severity
            if severity in (kinds.INTERNAL_ERROR, kinds.ERROR):
                self.last_error = message
            log.debug('TensorRT: %s', message)

    return Logger()


def _monitor(tensorrt: Any) -> Any:
    class Monitor(tensorrt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            tensorrt.IProgressMonitor.__init__(self)
            self._progress = Progress()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._progress.phase_start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return self._progress.step_complete(phase_name, step)

        def phase_finish(self, phase_name: str) -> None:
            self._progress.phase_finish(phase_name)

    return Monitor()


def _gpu(device: torch.device) -> str:
    major, minor = torch.cuda.get_device_capability(device)
    return f'{torch.cuda.get_device_name(device)} ({major}.{minor})'


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix('torch.')
