"""One pass of the CUDA engine: a captured graph from pinned memory to the packed Scene.

What the graph does not contain is the way back: it writes to the same addresses each time, and
each Scene is to have memory of its own (pinned, and recycled by torch). The copies of the maps
begin while boxes are still being decoded.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from tag_perception.core.preprocess import view_of
from tag_perception.core.structures import Camera, Objects3D, Scene, View
from tag_perception.runtime.branch import Branch
from tag_perception.runtime.copiers import Copiers
from tag_perception.runtime.runner import first_line

log = logging.getLogger(__name__)

WARM_UP = 3
"""Passes before the capture, in which cuDNN and Triton look for their fastest kernels."""

STAGES = ('start', 'upload', 'preprocess', 'network', 'decode', 'download')
"""What is noted in a pass: its start, and the end of each stage."""

MAPS = ('semantic', 'depth')
"""What is there, and can be fetched, before the boxes are."""
WIDTHS = {
    'class_id': 1,
    'score': 1,
    'center_cam': 3,
    'size_lwh_m': 3,
    'rotation_cam': 4,
    'box_2d_px': 4,
    'depth_sigma_m': 1,
}
"""Numbers that each field of Objects3D takes for one box."""

Wrapped = tuple[Tensor, bool]
"""(H, W, 3) uint8 on the host, and whether it is BGR."""
Mark = Callable[[str], None]


class Pass:
    """All work for a batch of images of one size: their places, and a graph to a Scene."""

    def __init__(
        self,
        compute: Callable[[Tensor, Tensor, View, Mark], Scene],
        key: tuple[int, int, int],
        input_size: tuple[int, int],
        pool: Any,
        stream: torch.cuda.Stream,
        branch: Branch,
        copiers: Copiers,
        device: torch.device,
    ) -> None:
        batch, height, width = key
        self._pinned = (
            torch.zeros(batch, height, width, 3, dtype=torch.uint8, pin_memory=True),
            torch.zeros(batch, dtype=torch.uint8, pin_memory=True),
            torch.ones(batch, 4, pin_memory=True),
        )
        """Images, whether they are BGR, intrinsics."""
        self._images, self._bgr, intrinsics = (
            torch.empty_like(pinned, device=device) for pinned in self._pinned
        )
        self._view = View(intrinsics, (height, width), input_size)
        self._compute, self._copiers = compute, copiers
        self._stream, self._branch = stream, branch
        self._events = {
            name: torch.cuda.Event(enable_timing=True, external=True) for name in (*STAGES, 'maps')
        }
        self._graph: torch.cuda.CUDAGraph | None = None
        for _ in range(WARM_UP):
            self._outputs = self._run()
        stream.synchronize()
        self._capture(pool)

    @property
    def captured(self) -> bool:
        """Whether this is a graph; otherwise each kernel is launched by itself."""
        return self._graph is not None

    def __call__(
        self, images: Sequence[Wrapped], cameras: Sequence[Camera], stages_ms: dict[str, float]
    ) -> list[Scene]:
        """Scenes on the host; adds the duration of their stages."""
        start = time.perf_counter()
        places, bgr, intrinsics = self._pinned
        self._copiers(list(places.numpy()), [memory.numpy() for memory, _ in images])
        bgr.copy_(torch.tensor([order for _, order in images]))
        intrinsics.copy_(view_of(cameras, self._view.input_size, 'cpu').intrinsics)
        copied_ms = (time.perf_counter() - start) * 1e3
        if self._graph is not None:
            self._graph.replay()
        else:
            self._outputs = self._run()
        host = self._download()
        self._stream.synchronize()
        marks = [(name, self._events[name]) for name in STAGES]
        for (_, before), (name, after) in itertools.pairwise(marks):
            stages_ms[name] = stages_ms.get(name, 0.0) + before.elapsed_time(after)
        stages_ms['upload'] += copied_ms
        return [
            unpack({name: tensor[i] for name, tensor in host.items()}) for i in range(len(images))
        ]

    def _run(self) -> dict[str, Tensor]:
        self._mark('start')
        there = self._images, self._bgr, self._view.intrinsics
        for place, pinned in zip(there, self._pinned, strict=True):
            place.copy_(pinned, non_blocking=True)
        self._mark('upload')
        return pack(self._compute(self._images, self._bgr, self._view, self._mark))

    def _download(self) -> dict[str, Tensor]:
        """Pinned copies, complete once the stream has come so far."""
        with self._branch.after(self._events['maps']):
            host = {name: _to_host(self._outputs[name]) for name in self._outputs if name in MAPS}
        if 'boxes' in self._outputs:
            host['boxes'] = _to_host(self._outputs['boxes'])
        self._branch.join()
        self._mark('download')
        return host

    def _capture(self, pool: Any) -> None:
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool, self._stream, capture_error_mode='thread_local'):
                self._outputs = self._run()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            log.warning('no CUDA graph, which costs time: %s', first_line(error))
            return
        self._graph = graph

    def _mark(self, stage: str) -> None:
        self._events[stage].record(torch.cuda.current_stream())


def pack(scene: Scene) -> dict[str, Tensor]:
    """What there is to download; all of the boxes in one tensor (B, K, 17)."""
    packed = {name: getattr(scene, name) for name in MAPS}
    if scene.detection3d is not None:
        columns = [getattr(scene.detection3d, name) for name in WIDTHS]
        packed['boxes'] = torch.cat(
            [(c if c.dim() == 3 else c[..., None]).float() for c in columns], dim=-1
        )
    return {name: tensor for name, tensor in packed.items() if tensor is not None}


def unpack(packed: dict[str, Tensor]) -> Scene:
    """The inverse of `_pack`, of one image."""
    boxes = None
    if 'boxes' in packed:
        named = dict(zip(WIDTHS, packed['boxes'].split(list(WIDTHS.values()), -1), strict=True))
        single = {name: value.squeeze(-1) for name, value in named.items() if WIDTHS[name] == 1}
        named |= single | {'class_id': single['class_id'].long()}
        boxes = Objects3D(**named)
    return Scene(packed.get('semantic'), packed.get('depth'), boxes)


def _to_host(tensor: Tensor) -> Tensor:
    """Pinned copy, complete once the current stream has come so far."""
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)
