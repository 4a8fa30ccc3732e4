"""Picture and world → Cityscapes-3D annotation: boxes, modal and amodal rectangles, regions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tag_perception.core import geometry
from tag_perception.core.labels import DETECTION_CLASSES, LABEL_BY_NAME, LABELS
from tag_perception.core.structures import Camera, Objects3D
from tag_perception.data.street.stage import shapes
from tag_perception.data.street.view import FULL_WIDTH, THINGS, Picture, World, camera_T_world

LABEL_NAME = {label.id: label.name for label in LABELS}
CLASS_ID = {LABEL_BY_NAME[name].id: index for index, name in enumerate(DETECTION_CLASSES)}
NEAREST_M, FARTHEST_M = 1.0, 100.0
"""Vehicles whose centre is not between these depths get no box but an ignore region."""
SMALLEST_PX = 16
"""Shortest side of a visible rectangle that still gets a box, at an image width of 2048 px."""
LEAST_VISIBLE = 0.12
"""Visible share of a vehicle below which it gets no box."""


@dataclass(frozen=True)
class Annotation:
    """What the annotators would have written about one picture."""

    instance: np.ndarray
    """(H, W) int32 `_instanceIds` values: label id * 1000 + number, or the label id alone."""
    label_id: np.ndarray
    """(N,) int64 label id of every annotated vehicle; all following arrays share this order."""
    instance_id: np.ndarray
    model: list[str]
    center_world: np.ndarray
    size_lwh_m: np.ndarray
    rotation_world: np.ndarray
    """(N, 3, 3) object axes → world."""
    modal_px: np.ndarray
    """(N, 4) int64 x1, y1, x2, y2 around the visible pixels; the far edges are exclusive."""
    amodal_px: np.ndarray
    """(N, 4) float64 x1, y1, x2, y2 of the projected box, clipped to the image."""
    occlusion: np.ndarray
    truncation: np.ndarray
    ignore_px: np.ndarray
    """(M, 4) int64 x1, y1, x2, y2 of vehicles without a box."""
    ignore_id: np.ndarray
    """(M,) their instance ids."""


def annotate(world: World, picture: Picture) -> Annotation:
    """Everything that the labels of one picture say."""
    standing, camera, to_camera = world.standing, world.rig.camera, camera_T_world(world)
    placed = np.nonzero(world.thing)[0]  # thing number k is placement placed[k - 1]
    label, group = standing.label[placed], standing.group[placed]
    instance_id = np.where(group, label, label * 1000 + _numbers(label, group))
    boxes, visible = _rectangles(picture.thing, len(placed))
    share = visible / np.maximum(picture.coverage.cpu().numpy()[1:], 1)
    center = standing.box_center[placed]
    depth = (center @ to_camera[:3, :3].T + to_camera[:3, 3])[:, 0]
    side = (boxes[:, 2:] - boxes[:, :2]).min(1) * FULL_WIDTH / camera.width
    vehicle = np.isin(label, list(CLASS_ID)) & (visible > 0)
    clear = (side >= SMALLEST_PX) & (share >= LEAST_VISIBLE) & ~group
    boxed = vehicle & clear & (depth > NEAREST_M) & (depth < FARTHEST_M)
    chosen, ignored = np.nonzero(boxed)[0], np.nonzero(vehicle & ~boxed)[0]
    who = placed[chosen]
    size, rotation = standing.box_size[who], standing.rotation[who]
    amodal, truncation = _amodal(center[chosen], size, rotation, to_camera, camera)
    regions, region_ids = _regions(boxes[ignored], instance_id[ignored])
    names = list(shapes())
    return Annotation(
        instance=_instances(picture, instance_id),
        label_id=label[chosen],
        instance_id=instance_id[chosen],
        model=[names[i] for i in standing.shape[who]],
        center_world=center[chosen],
        size_lwh_m=size,
        rotation_world=rotation,
        modal_px=boxes[chosen],
        amodal_px=amodal,
        occlusion=(1 - share[chosen]).clip(0, 1),
        truncation=truncation,
        ignore_px=regions,
        ignore_id=region_ids,
    )


def objects(note: Annotation, world: World) -> Objects3D:
    """The boxes in C."""
    transform = camera_T_world(world)
    rotation = transform[:3, :3] @ note.rotation_world
    count = len(note.label_id)
    return Objects3D(
        class_id=torch.tensor([CLASS_ID[i] for i in note.label_id], dtype=torch.int64),
        score=torch.ones(count),
        center_cam=torch.from_numpy(
            note.center_world @ transform[:3, :3].T + transform[:3, 3]
        ).float(),
        size_lwh_m=torch.from_numpy(note.size_lwh_m).float(),
        rotation_cam=geometry.quaternion_from_rotation(torch.from_numpy(rotation)).float(),
        box_2d_px=torch.from_numpy(note.modal_px.astype(np.float32)),
        depth_sigma_m=torch.zeros(count),
    )


def record(note: Annotation, world: World) -> dict[str, Any]:
    """The content of a `gtBbox3d` file."""
    camera, to_vehicle = world.rig.camera, np.linalg.inv(world.world_T_vehicle)
    assert camera.camera_T_vehicle is not None
    center = note.center_world @ to_vehicle[:3, :3].T + to_vehicle[:3, 3]
    rotation = torch.from_numpy(to_vehicle[:3, :3] @ note.rotation_world)
    quaternion = geometry.quaternion_from_rotation(rotation).numpy()
    ignore = [
        {'2d': _xywh(box), 'label': _label_of(int(number)), 'instanceId': int(number)}
        for box, number in zip(note.ignore_px, note.ignore_id, strict=True)
    ]
    return {
        'imgWidth': camera.width,
        'imgHeight': camera.height,
        'sensor': {
            'sensor_T_ISO_8855': camera.camera_T_vehicle[:3].tolist(),
            'fx': camera.fx, 'fy': camera.fy, 'u0': camera.u0, 'v0': camera.v0,
            'baseline': camera.baseline_m,
        },
        'objects': [
            _entry(note, i, center[i], quaternion[i], camera.width) for i in range(len(center))
        ],
        'ignore': ignore,
    }  # fmt: skip


def _entry(
    note: Annotation, i: int, center: np.ndarray, quaternion: np.ndarray, width: int
) -> dict[str, Any]:
    return {
        '2d': {
            'modal': _xywh(note.modal_px[i]),
            'amodal': _rounded_xywh(note.amodal_px[i], min(1.0, width / FULL_WIDTH)),
        },
        '3d': {
            'center': center.tolist(),
            'dimensions': note.size_lwh_m[i].tolist(),
            'rotation': quaternion.tolist(),
            'type': note.model[i],
            'format': 'CRS_ISO8855',
        },
        'occlusion': round(float(note.occlusion[i]), 2),
        'truncation': round(float(note.truncation[i]), 2),
        'instanceId': int(note.instance_id[i]),
        'label': LABEL_NAME[int(note.label_id[i])],
        'score': 1.0,
    }


def _instances(picture: Picture, instance_id: np.ndarray) -> np.ndarray:
    table = np.concatenate(([0], instance_id)).astype(np.int32)
    thing = picture.thing.cpu().numpy()
    return np.where(thing > 0, table[thing], picture.label.cpu().numpy())


def _rectangles(thing: Tensor, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(count, 4) x1, y1, x2, y2 (exclusive) and (count,) number of the pixels of things 1, 2, …"""
    row, column = (thing > 0).nonzero().unbind(1)
    index = thing[row, column].to(torch.int64)
    empty = torch.zeros(count + 1, dtype=torch.int64, device=thing.device)
    low = [(empty + (1 << 20)).scatter_reduce(0, index, v, 'amin') for v in (column, row)]
    high = [empty.scatter_reduce(0, index, v + 1, 'amax') for v in (column, row)]
    visible = empty.scatter_add(0, index, torch.ones_like(index))
    return torch.stack([*low, *high], 1)[1:].cpu().numpy(), visible[1:].cpu().numpy()


def _numbers(label: np.ndarray, group: np.ndarray) -> np.ndarray:
    """0, 1, 2, … within each class, by placement: the same in all frames of a sequence."""
    number = np.zeros(len(label), np.int64)
    for value in THINGS:
        mine = (label == value) & ~group
        number[mine] = np.arange(mine.sum())
    return number


def _amodal(
    center: np.ndarray,
    size: np.ndarray,
    rotation: np.ndarray,
    to_camera: np.ndarray,
    camera: Camera,
) -> tuple[np.ndarray, np.ndarray]:
    """Clipped rectangles of the projected boxes, and the share of their area outside the image."""
    center_t = torch.from_numpy(center @ to_camera[:3, :3].T + to_camera[:3, 3])
    corners = geometry.box_corners(
        center_t, torch.from_numpy(size), torch.from_numpy(to_camera[:3, :3] @ rotation)
    )
    margin = 1 << 22  # so wide that nothing is clipped
    inside = torch.tensor([camera.fx, camera.fy, camera.u0, camera.v0], dtype=torch.float64)
    wide = inside + torch.tensor([0, 0, margin, margin], dtype=torch.float64)
    clipped = geometry.amodal_boxes(corners, inside, camera.width, camera.height)
    whole = geometry.amodal_boxes(corners, wide, 2 * margin, 2 * margin)
    area = [(b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1]) for b in (clipped, whole)]
    truncation = 1 - (area[0] + 1e-9) / (area[1] + 1e-9)
    return clipped.numpy(), truncation.clamp(0, 1).numpy()


def _regions(boxes: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One rectangle per vehicle without a box; the members of a group share one."""
    merged: dict[int, np.ndarray] = {}
    for box, number in zip(boxes, ids, strict=True):
        key = int(number)
        if key in merged:
            old = merged[key]
            box = np.concatenate((np.minimum(old[:2], box[:2]), np.maximum(old[2:], box[2:])))
        merged[key] = box
    if not merged:
        return np.zeros((0, 4), np.int64), np.zeros(0, np.int64)
    return np.stack(list(merged.values())), np.array(list(merged))


def _label_of(instance_id: int) -> str:
    return LABEL_NAME[instance_id // 1000 if instance_id >= 1000 else instance_id]


def _rounded_xywh(box: np.ndarray, step: float) -> list[float]:
    """Outwards to multiples of `step`: whole pixels at the size of the real images.

    As fine for their size in smaller ones, where whole pixels would cost a small box the match.
    """
    low, high = np.floor(box[:2] / step) * step, np.ceil(box[2:] / step) * step
    return [*low.tolist(), *(high - low).tolist()]


def _xywh(box: np.ndarray) -> list[int]:
    return [int(box[0]), int(box[1]), int(box[2] - box[0]), int(box[3] - box[1])]
