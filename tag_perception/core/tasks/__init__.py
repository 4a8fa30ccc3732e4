"""The tasks. Each module holds the same four names: Head, encode_target, loss, decode.

A task's key is its name everywhere: in network output, losses, metrics, logs and topics.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from tag_perception.core.labels import SKY
from tag_perception.core.structures import Scene, View
from tag_perception.core.tasks import depth, detection3d, semantic

TASKS: dict[str, ModuleType] = {
    'detection3d': detection3d,
    'semantic': semantic,
    'depth': depth,
}

LOSS_WEIGHTS = {'detection3d': 1.0, 'semantic': 100.0, 'depth': 1.0}
"""lambda of each task's summed loss terms (paper Eq. 5)."""


def decode(outputs: Mapping[str, Tensor], view: View) -> Scene:
    """Batched Scene of the network's outputs, on their device; absent tasks are None.

    The sky has no depth: where it is decoded, depth is NaN.
    """
    return assemble(
        {key: task.decode(outputs[key], view) for key, task in TASKS.items() if key in outputs}
    )


def assemble(decoded: Mapping[str, Any]) -> Scene:
    """Scene of what the tasks' `decode` returned, by task."""
    scene = Scene(**{key: decoded.get(key) for key in TASKS})
    if scene.semantic is None or scene.depth is None:
        return scene
    sky = scene.semantic == SKY
    return replace(scene, depth=torch.where(sky, torch.nan, scene.depth))
