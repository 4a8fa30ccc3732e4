"""The reference path from images to a Scene: what every faster path is measured against."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tag_perception.core import tasks
from tag_perception.core.network import Network
from tag_perception.core.preprocess import to_input, view_of
from tag_perception.core.structures import Camera, Scene


@torch.inference_mode()
def infer(network: Network, images: Tensor, cameras: Sequence[Camera], bgr: bool = False) -> Scene:
    """Batched Scene of (B, H, W, 3) uint8 images of one size, on the device of `images`."""
    size = network.config.input_size
    outputs = network(to_input(images, size, bgr))
    return tasks.decode(outputs, view_of(cameras, size, images.device))
