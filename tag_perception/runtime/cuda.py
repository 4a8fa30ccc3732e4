"""Images to Scenes on CUDA, in captured graphs (runtime/passes.py).

The network is that of runtime/fused.py where the GPU has what its kernels need, and torch's
elsewhere. A graph belongs to one image size and batch; the ones used last are kept. It fetches the
images from a pinned place, to which a few threads copy them.
"""

from __future__ import annotations

import logging
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import Literal, cast

import numpy as np
import torch
from torch import Tensor

from tag_perception.config import InputError
from tag_perception.core.preprocess import to_input, to_tensor
from tag_perception.core.structures import Camera, Scene, View
from tag_perception.core.tasks import semantic
from tag_perception.runtime import streams
from tag_perception.runtime.branch import Branch
from tag_perception.runtime.copiers import Copiers
from tag_perception.runtime.decoding import Labeller, decode_boxes, decode_maps
from tag_perception.runtime.passes import Mark, Pass, Wrapped
from tag_perception.runtime.runner import EngineFailure, MapMemory, first_line
from tag_perception.runtime.tensorrt import TensorRtTrunk
from tag_perception.runtime.trunk import Trunk

log = logging.getLogger(__name__)

MAX_GRAPHS = 16
"""Graphs kept, for every batch of eight cameras and as many more; each holds its own inputs and
outputs, and all share their working memory."""
KERNELS_SINCE = (9, 0)
"""Compute capability, Hopper's, from which on there is what the kernels are written for."""
CudaBackend = Literal['triton', 'torch', 'tensorrt', 'compiled']
"""triton: our kernels. compiled: by torch.compile; for comparison only."""


class CudaRunner:
    """The trunk in half precision inside CUDA graphs; in torch it is channels last."""

    def __init__(
        self,
        trunk: Trunk,
        device: torch.device,
        dtype: torch.dtype,
        backend: CudaBackend = 'torch',
    ) -> None:
        """Raises InputError where `backend` cannot run the network here."""
        self._size, self._names = trunk.config.input_size, trunk.names
        self._dtype, self._device = dtype, device
        self._stream = streams.borrow(device)
        self._branch = Branch(streams.borrow(device))
        self._network = _build_network(trunk, device, dtype, backend, self._branch)
        self._peak_head = trunk.peak_head and trunk.peak_head.to(device, dtype)
        self._label = _choose_labeller(device)
        self._normalise = _choose_normaliser(backend, self._size, dtype)
        self._pool = torch.cuda.graph_pool_handle()
        self._copiers = Copiers()
        self._graphs: OrderedDict[tuple[int, int, int], Pass] = OrderedDict()
        self._max_batch: int | None = None
        self._prefix = '' if backend == 'torch' else f'{backend}, '
        self.backend: str = backend
        self.stages_ms: dict[str, float] = {}
        torch.cuda.synchronize(device)  # the weights are there before another stream reads them

    @torch.inference_mode()
    def __call__(
        self,
        images: Sequence[np.ndarray],
        cameras: Sequence[Camera],
        memory: Sequence[MapMemory] | None = None,
    ) -> list[Scene]:
        """One Scene per (H, W, 3) uint8 RGB image; cameras are valid and of the images' size.

        `memory` is not used: results come through pinned memory, which messages are not in.
        Raises EngineFailure where the memory does not suffice for a single image.
        """
        self.stages_ms.clear()
        scenes: dict[int, Scene] = {}
        wrapped = [to_tensor(image) for image in images]
        groups = defaultdict(list)
        for index, (pixels, _) in enumerate(wrapped):
            groups[pixels.shape].append(index)
        with torch.cuda.stream(self._stream):
            for group in groups.values():
                found = self._batch([wrapped[i] for i in group], [cameras[i] for i in group])
                scenes.update(zip(group, found, strict=True))
        return [scenes[index] for index in range(len(images))]

    def close(self) -> None:
        """Free weights, graphs, threads and cached memory."""
        del self._network, self._peak_head
        self._copiers.close()
        self._forget()
        for stream in (self._stream, self._branch.stream):
            streams.give_back(self._device, stream)

    def _batch(self, images: list[Wrapped], cameras: list[Camera]) -> list[Scene]:
        """One pass for all, or several smaller ones where the memory does not suffice."""
        if self._max_batch is not None and len(images) > self._max_batch:
            at = self._max_batch
            first = self._batch(images[:at], cameras[:at])
            return first + self._batch(images[at:], cameras[at:])
        try:
            return self._pass_for(images)(images, cameras, self.stages_ms)
        except torch.OutOfMemoryError as error:
            problem = first_line(error)
        # Here the exception is gone, and with it the tensors that its traceback held.
        others = len(self._graphs)
        self._forget()
        if len(images) > 1:
            self._max_batch = len(images) // 2
            log.warning('GPU memory: batches of at most %d from now on', self._max_batch)
        elif not others:
            height, width = images[0][0].shape[:2]
            raise EngineFailure(
                f'not enough GPU memory for one image of {width}×{height}: {problem}; end other '
                'programs on the GPU, or take a smaller preset'
            )
        return self._batch(images, cameras)

    def _pass_for(self, images: list[Wrapped]) -> Pass:
        height, width = images[0][0].shape[:2]
        key = (len(images), height, width)
        if key not in self._graphs:
            log.info('preparing batches of %d images of %d×%d', len(images), width, height)
            if len(self._graphs) >= MAX_GRAPHS:
                (batch, old_height, old_width), _ = self._graphs.popitem(last=False)
                log.info('dropped: batches of %d of %d×%d', batch, old_width, old_height)
            self._graphs[key] = Pass(
                self._compute,
                key,
                self._size,
                self._pool,
                self._stream,
                self._branch,
                self._copiers,
                self._device,
            )
            if self._graphs[key].captured:
                self.backend = f'{self._prefix}cuda graph'
        self._graphs.move_to_end(key)
        return self._graphs[key]

    def _forget(self) -> None:
        """Free all graphs, and their common pool, which cannot be used again afterwards."""
        self._graphs.clear()
        self._pool = torch.cuda.graph_pool_handle()
        torch.cuda.empty_cache()

    def _compute(self, images: Tensor, bgr: Tensor, view: View, mark: Mark) -> Scene:
        """Batched Scene of images, all on the device; `mark` notes the end of each stage."""
        exact = self._dtype == torch.float32
        with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=not exact):
            inputs = self._normalise(images, bgr)
            mark('preprocess')
            outputs = dict(zip(self._names, self._network(inputs), strict=True))
            with self._branch.beside():
                mark('network')
                maps = decode_maps(outputs, view, self._label)
                mark('maps')
            boxes = decode_boxes(outputs, self._peak_head, view)
            self._branch.join()
        mark('decode')
        return replace(maps, detection3d=boxes)


def _build_network(
    trunk: Trunk, device: torch.device, dtype: torch.dtype, backend: CudaBackend, branch: Branch
) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """The outputs of `trunk.names`, in this order."""
    if backend == 'tensorrt':
        return TensorRtTrunk(trunk, device, dtype)
    if backend == 'triton':
        reason = why_no_kernels(device, dtype)
        if reason is not None:
            raise InputError(f'backend triton: {reason}; set backend to auto or torch')
        from tag_perception.runtime.fused import FusedTrunk

        return FusedTrunk(trunk.to(device, dtype), branch)
    moved = trunk.to(device, dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if backend == 'compiled':
        # Trying all its own convolutions takes minutes, and those of cuDNN are faster.
        return torch.compile(moved, dynamic=False)
    return moved


def choose_backend(device: torch.device, dtype: torch.dtype, asked: str = 'auto') -> CudaBackend:
    """What is asked for, or what is fastest of that which needs no building."""
    if asked in ('triton', 'torch', 'tensorrt'):
        return cast(CudaBackend, asked)
    reason = why_no_kernels(device, dtype)
    if reason is not None:
        log.info('torch computes the network: %s', reason)
    return 'triton' if reason is None else 'torch'


def why_no_kernels(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why the network cannot be computed by our kernels, or None where it can."""
    if dtype == torch.float32:
        return 'the kernels compute in half precision'
    found = torch.cuda.get_device_capability(device)
    if found < KERNELS_SINCE:
        needed = '.'.join(map(str, KERNELS_SINCE))
        return f'the GPU has compute capability {found[0]}.{found[1]}, not {needed} or more'
    return None if find_spec('triton') else 'triton is not installed'


def _choose_normaliser(
    backend: CudaBackend, size: tuple[int, int], dtype: torch.dtype
) -> Callable[[Tensor, Tensor], Tensor]:
    """(B, H, W, 3) uint8 images, and (B,) which are BGR → network input of `size`."""

    def resize(images: Tensor, bgr: Tensor) -> Tensor:
        rgb = torch.where(bgr.bool()[:, None, None, None], images.flip(3), images)
        return to_input(rgb, size).to(dtype)

    if backend != 'triton':
        return resize
    from tag_perception.runtime.kernels.maps import normalise

    def at_once(images: Tensor, bgr: Tensor) -> Tensor:
        same = tuple(images.shape[1:3]) == size
        return normalise(images, bgr, dtype) if same else resize(images, bgr)

    return at_once


def _choose_labeller(device: torch.device) -> Labeller:
    """The kernel where triton works, or the plain way, one image at a time for its memory."""
    try:
        from tag_perception.runtime.kernels.labelling import labels_at

        labels_at(torch.zeros(1, 2, 4, 4, device=device), (8, 8))
    except Exception as error:  # no triton, no compiler, a GPU it does not know: all the same
        log.info('labels without triton: %s', first_line(error))
        return lambda logits, size: torch.cat(
            [semantic.upsample(row[None], size).argmax(1).to(torch.uint8) for row in logits]
        )
    return labels_at
