"""A Sample at the size of the network input, filtered exactly as inference filters its images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F

from tag_perception.core.structures import Sample


def resize_sample(sample: Sample, size: tuple[int, int]) -> Sample:
    """The sample at `size` = (height, width): calibration and rectangles follow the pixels.

    The image is filtered as in `core.preprocess.to_input`; labels take their nearest pixel, so no
    class, depth or gap is ever averaged. Boxes in 3D and metric depth do not change.
    """
    height, width = size
    if sample.image.shape[:2] == size:
        return sample
    scale = np.array([width / sample.camera.width, height / sample.camera.height] * 2, np.float32)
    objects, ignore_px = sample.detection3d, sample.ignore_px
    if objects is not None:
        factor = torch.from_numpy(scale)
        objects = replace(objects, box_2d_px=(objects.box_2d_px + 0.5) * factor - 0.5)
    return replace(
        sample,
        image=_filtered(sample.image, size),
        camera=sample.camera.resized(width, height),
        semantic=_nearest(sample.semantic, size),
        depth=_nearest(sample.depth, size),
        detection3d=objects,
        ignore_px=None if ignore_px is None else (ignore_px + 0.5) * scale - 0.5,
    )


def _filtered(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    tensor = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
    resized = F.interpolate(tensor, size=size, mode='bilinear', antialias=True)
    return np.ascontiguousarray(resized[0].permute(1, 2, 0).numpy())


def _nearest(labels: np.ndarray | None, size: tuple[int, int]) -> np.ndarray | None:
    if labels is None:
        return None
    # The pixel under the centre of the new one; OpenCV's exact mode breaks ties unevenly.
    rows, columns = (
        (2 * np.arange(new) + 1) * old // (2 * new)
        for new, old in zip(size, labels.shape, strict=True)
    )
    return labels[rows][:, columns]
