"""Do the tasks agree on an object? The depth map inside a box's own mask against the box."""

from __future__ import annotations

import torch
from torch import Tensor

from tag_perception.core.geometry import camera_to_optical, rotation_from_quaternion, unproject
from tag_perception.core.labels import DETECTION_TRAIN_IDS
from tag_perception.core.structures import Camera, Objects3D, Scene

SAMPLES = 32
"""A mask is looked at in at most this many rows and columns of its rectangle."""


def consistency(scene: Scene, camera: Camera) -> Tensor | None:
    """(N,) agreement in [0, 1] of every box of the scene; None where a task is missing.

    1 - |d_map - d_box| / d_box, at least 0: 0.9 says that the two are 10 % apart. d_map is the
    median depth of the pixels of the box's class inside its 2D rectangle, d_box the median depth
    at which the viewing rays of the same pixels enter the 3D box (its centre, where none does).
    0 where the mask has no such pixel, or none with a depth: the tasks disagree on what is there.
    """
    boxes = scene.detection3d
    if boxes is None or scene.semantic is None or scene.depth is None:
        return None
    scores = [
        _agreement(boxes[index : index + 1], scene.semantic, scene.depth, camera)
        for index in range(len(boxes))
    ]
    return torch.tensor(scores, dtype=torch.float32)


def _agreement(box: Objects3D, semantic: Tensor, depth: Tensor, camera: Camera) -> float:
    rows, columns = _grid(box.box_2d_px[0], camera)
    seen = semantic[rows][:, columns] == DETECTION_TRAIN_IDS[int(box.class_id[0])]
    depth_m = depth[rows][:, columns]
    seen &= depth_m > 0  # False for NaN
    if not seen.any():
        return 0.0
    v, u = torch.meshgrid(rows, columns, indexing='ij')
    entry_m = enter_box(torch.stack((u[seen], v[seen]), -1).double(), box, camera)
    hits = entry_m[entry_m.isfinite()]
    center_m = float(camera_to_optical(box.center_cam[0])[2])
    box_m = float(hits.median()) if len(hits) else center_m
    if box_m <= 0:
        return 0.0
    return max(0.0, 1.0 - abs(float(depth_m[seen].median()) - box_m) / box_m)


def _grid(rectangle_px: Tensor, camera: Camera) -> tuple[Tensor, Tensor]:
    """Rows and columns of the pixels to look at, evenly spread over the rectangle."""
    x1, y1, x2, y2 = rectangle_px.nan_to_num().tolist()
    return _spread(y1, y2, camera.height), _spread(x1, x2, camera.width)


def _spread(low: float, high: float, size: int) -> Tensor:
    first, last = (min(max(round(value), 0), size - 1) for value in (low, high))
    count = min(max(last - first + 1, 1), SAMPLES)
    return torch.linspace(first, max(last, first), count).round().long()


def enter_box(pixel: Tensor, box: Objects3D, camera: Camera) -> Tensor:
    """Depth z (M,) at which the rays through pixels (M, 2) enter one box; inf where they miss it.

    Slab method in the axes of the box, where it reaches from minus to plus half its size.
    """
    intrinsics = pixel.new_tensor([camera.fx, camera.fy, camera.u0, camera.v0])
    rays = unproject(pixel, torch.ones_like(pixel[:, 0]), intrinsics)  # in S, z = 1
    object_R_camera = rotation_from_quaternion(box.rotation_cam[0].double()).T
    direction = torch.stack((rays[:, 2], -rays[:, 0], -rays[:, 1]), -1) @ object_R_camera.T
    origin = -object_R_camera @ box.center_cam[0].double()
    half = box.size_lwh_m[0].double() / 2
    direction = torch.where(direction.abs() < 1e-12, 1e-12, direction)
    near, far = ((sign * half - origin) / direction for sign in (-1, 1))
    enter = torch.minimum(near, far).amax(-1)
    leave = torch.maximum(near, far).amin(-1)
    return torch.where((enter <= leave) & (enter > 0), enter, torch.inf)
