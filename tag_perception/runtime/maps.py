"""Mask and depth of one image on the CPU, computed where they are to lie.

What `core.tasks.decode` says, by whatever computes it fastest on a CPU: labels without upsampling
every class, depth upsampled by OpenCV (an eighth of torch's time), the sky by NumPy.
"""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
import torch
from torch import Tensor

from tag_perception.core.labels import SKY
from tag_perception.core.structures import Scene
from tag_perception.core.tasks import depth
from tag_perception.runtime.labelling import labels_at
from tag_perception.runtime.runner import MapMemory


def decode_maps(outputs: Mapping[str, Tensor], memory: MapMemory) -> Scene:
    """Scene without boxes, in `memory`, of what `outputs`, (1, C, h, w) each, has of both maps."""
    height, width = memory.depth.shape
    if 'semantic' in outputs:
        labels = labels_at(outputs['semantic'], (height, width))
        np.copyto(memory.semantic, labels[0].numpy())
    if 'depth' in outputs:
        cells = depth.in_metres(outputs['depth'])[0, 0].contiguous().numpy()
        cv2.resize(cells, (width, height), dst=memory.depth, interpolation=cv2.INTER_LINEAR)
    if 'semantic' in outputs and 'depth' in outputs:
        np.copyto(memory.depth, np.nan, where=memory.semantic == SKY)
    return Scene(
        semantic=torch.from_numpy(memory.semantic) if 'semantic' in outputs else None,
        depth=torch.from_numpy(memory.depth) if 'depth' in outputs else None,
        detection3d=None,
    )
