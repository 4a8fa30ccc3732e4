"""An engine that says the same of every image, to measure everything around the network.

python -m tag_perception.ros.constant [--ros-args …]: the perception node with this engine
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from tag_perception.config import InputError
from tag_perception.core.network import NetworkConfig
from tag_perception.core.structures import Camera, Objects3D, Scene
from tag_perception.ros import process
from tag_perception.runtime.engine import EngineConfig, EngineStatus
from tag_perception.runtime.runner import MapMemory

BOXES = 20
"""Cars in a row, as many as a busy street shows."""
ROAD = 0
"""Train id of every pixel."""
DEPTH_M = 20.0
"""Of every pixel and box."""


class ConstantEngine:
    """Road, 20 m away, everywhere, and a row of cars, in no time; made once per image size."""

    def __init__(self, config: EngineConfig) -> None:
        self.stages_ms: dict[str, float] = {}
        self.problem: str | None = None
        self.rebuilds = 0
        self.status = EngineStatus(
            device='cpu',
            device_name='no network',
            precision='fp32',
            checkpoint='none: constants',
            trained=False,
            network=NetworkConfig(),
            fallback=None,
            backend='none',
            largest_batch=8,
        )
        self._scenes: dict[tuple[int, ...], Scene] = {}

    def prepare(self, together: int) -> None:
        """There is nothing to warm up."""

    def batch(
        self,
        images: Sequence[np.ndarray],
        cameras: Sequence[Camera | None],
        memory: Sequence[MapMemory] | None = None,
    ) -> list[Scene]:
        """The Scene for each (H, W, 3) image, with boxes where there is a camera."""
        scenes = [self._scene(image.shape[:2], camera is not None)
                  for image, camera in zip(images, cameras, strict=True)]  # fmt: skip
        if memory is None:
            return scenes
        return [
            replace(s, semantic=_constant(m.semantic, ROAD), depth=_constant(m.depth, DEPTH_M))
            for s, m in zip(scenes, memory, strict=True)
        ]

    def _scene(self, size: tuple[int, ...], boxes: bool) -> Scene:
        key = (*size, boxes)
        if key not in self._scenes:
            self._scenes[key] = Scene(
                semantic=torch.full(size, ROAD, dtype=torch.uint8),
                depth=torch.full(size, DEPTH_M),
                detection3d=_cars() if boxes else None,
            )
        return self._scenes[key]


def _constant(place: np.ndarray, value: float) -> Tensor:
    """`place` with the constant in it, as an engine leaves its result; as a rule it is there."""
    if not (place[0, 0] == place[-1, -1] == value):
        place.fill(value)
    return torch.from_numpy(place)


def _cars() -> Objects3D:
    depth_m, sideways_m = torch.full((BOXES,), DEPTH_M), torch.linspace(-20.0, 20.0, BOXES)
    return Objects3D(
        class_id=torch.zeros(BOXES, dtype=torch.long),
        score=torch.full((BOXES,), 0.9),
        center_cam=torch.stack((depth_m, sideways_m, -sideways_m * 0), dim=1),
        size_lwh_m=torch.tensor([[4.3, 1.7, 1.5]]).repeat(BOXES, 1),
        rotation_cam=torch.tensor([[1.0, 0.0, 0.0, 0.0]]).repeat(BOXES, 1),
        box_2d_px=torch.zeros(BOXES, 4),
        depth_sigma_m=torch.ones(BOXES),
    )


def main(arguments: Sequence[str]) -> int:
    """Serve the node until a signal."""

    def work(stop: process.Stop) -> int:
        from tag_perception.ros import node, session

        build = partial(node.PerceptionNode, ConstantEngine)
        return session.serve(build, stop, ['perception_node', *arguments])

    try:
        return process.run(work, leave=True)
    except InputError as error:
        print(f'perception_node: {error}', file=sys.stderr)
        return 2


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
