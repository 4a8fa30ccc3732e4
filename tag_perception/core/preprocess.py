"""The only way from image to network input; training, evaluation and the runtime all walk it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tag_perception.core.structures import Camera, View

MEAN = (0.485, 0.456, 0.406)
"""ImageNet mean of R, G, B in [0, 1]."""
STD = (0.229, 0.224, 0.225)


def to_tensor(image: np.ndarray) -> tuple[Tensor, bool]:
    """Wrap an (H, W, 3) uint8 RGB view as a tensor without a copy; True if its memory is BGR.

    A BGR image is handed around as the RGB view `image[..., ::-1]`. Torch knows no negative
    strides, so the memory order travels as a flag to `to_input`.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f'expected an (H, W, 3) uint8 image, got {image.shape} {image.dtype}')
    bgr = image.strides[2] < 0
    memory = image[..., ::-1] if bgr else image
    if min(memory.strides) < 0:
        memory = memory.copy()
    return torch.from_numpy(_as_writable(memory)), bgr


def _as_writable(array: np.ndarray) -> np.ndarray:
    """The same memory: torch warns of what is read-only, though nobody writes to an image."""
    address = array.ctypes.data
    shared = SimpleNamespace(
        __array_interface__={**array.__array_interface__, 'data': (address, False)}, owner=array
    )
    return np.asarray(shared)


def to_input(images: Tensor, size: tuple[int, int], bgr: bool = False) -> Tensor:
    """(B, 3, h, w) normalised float32 RGB, channels last, of (B, H, W, 3) uint8 images.

    Resized with an antialiased bilinear filter and rounded to grey levels, which the CPU does four
    times faster in uint8 than in float and a GPU only in float.
    """
    channels_first = images.permute(0, 3, 1, 2)
    if channels_first.shape[-2:] != size:
        if images.device.type != 'cpu':
            channels_first = channels_first.float()
        channels_first = F.interpolate(channels_first, size=size, mode='bilinear', antialias=True)
        if channels_first.is_floating_point():
            channels_first = channels_first.round()
    if bgr:
        channels_first = channels_first.flip(1)
    # A row at a time: three channels side by side are too few for the CPU's vector units.
    rows = channels_first.permute(0, 2, 3, 1).float().flatten(2)  # (B, h, 3 w), own memory
    mean, std = _grey_levels(images.device, size[1])
    return rows.sub_(mean).div_(std).unflatten(2, (size[1], 3)).permute(0, 3, 1, 2)


@functools.cache
def _grey_levels(device: torch.device, width: int) -> tuple[Tensor, Tensor]:
    """MEAN and STD of 0…255 for a row, each (3 · width,).

    Kept, since a CUDA graph cannot upload them.
    """
    with torch.inference_mode(False):
        mean, std = ((255 * torch.tensor(values)).repeat(width) for values in (MEAN, STD))
        return mean.to(device), std.to(device)


def view_of(
    cameras: Sequence[Camera], input_size: tuple[int, int], device: torch.device | str
) -> View:
    """The View of a batch of equally large images taken by `cameras`."""
    intrinsics = [[camera.fx, camera.fy, camera.u0, camera.v0] for camera in cameras]
    return View(
        intrinsics=torch.tensor(intrinsics, dtype=torch.float32, device=device),
        image_size=(cameras[0].height, cameras[0].width),
        input_size=input_size,
    )
