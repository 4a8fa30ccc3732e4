"""The files of one Cityscapes-3D frame → arrays, Camera and Objects3D; and boxes back to JSON.

The JSON gives boxes in V, `Objects3D` holds them in C: p_C = R p_V + t and R_C = R R_V, where
[R|t] is `sensor_T_ISO_8855`, the inverse of the extrinsic in the camera file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tag_perception.config import InputError
from tag_perception.core import geometry
from tag_perception.core.labels import (
    DETECTION_CLASSES,
    ID_TO_TRAIN_ID,
    LABEL_BY_NAME,
    LABELS,
    UNLABELLED,
)
from tag_perception.core.structures import Camera, Objects3D
from tag_perception.data.files import JsonFile, Key, check_size, read_pixels

MAX_SIDE = 2**16
"""Pixels; an image that claims to be wider or higher is a damaged one."""

_KNOWN_IDS = np.isin(np.arange(256), [label.id for label in LABELS] + [UNLABELLED])


def read_image(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB."""
    return read_pixels(path, '8-bit RGB', ('RGB',))


def read_camera(path: Path, width: int = 2048, height: int = 1024) -> Camera:
    """Calibration from `camera/*.json`, for images of the given size.

    The extrinsic is the pose of C in V, R = Rz(yaw) Ry(pitch) Rx(roll) (csCalibration eq. 3-4).
    """
    file = JsonFile(path)
    yaw, pitch, roll = (
        torch.tensor(file.number('extrinsic', key), dtype=torch.float64)
        for key in ('yaw', 'pitch', 'roll')
    )
    rotation = geometry.rotation_from_euler(yaw, pitch, roll).numpy()
    position = np.array([file.number('extrinsic', key) for key in 'xyz'])
    camera = Camera(
        width=width,
        height=height,
        fx=_positive(file, 'intrinsic', 'fx'),
        fy=_positive(file, 'intrinsic', 'fy'),
        u0=file.number('intrinsic', 'u0'),
        v0=file.number('intrinsic', 'v0'),
        baseline_m=_positive(file, 'extrinsic', 'baseline'),
        camera_T_vehicle=_transform(rotation.T, -rotation.T @ position),
    )
    return _usable(camera, file, 'intrinsic')


def read_sensor(path: Path) -> Camera:
    """Calibration from the `sensor` block of `gtBbox3d/*.json`."""
    file = JsonFile(path)
    rows = np.stack([file.numbers(4, 'sensor', 'sensor_T_ISO_8855', i) for i in range(3)])
    if not np.allclose(rows[:, :3] @ rows[:, :3].T, np.eye(3), atol=1e-6):
        raise file.fault('the rotation is not orthonormal', 'sensor', 'sensor_T_ISO_8855')
    has_baseline = file.has('sensor', 'baseline')
    camera = Camera(
        width=_side(file, 'imgWidth'),
        height=_side(file, 'imgHeight'),
        fx=_positive(file, 'sensor', 'fx'),
        fy=_positive(file, 'sensor', 'fy'),
        u0=file.number('sensor', 'u0'),
        v0=file.number('sensor', 'v0'),
        baseline_m=_positive(file, 'sensor', 'baseline') if has_baseline else None,
        camera_T_vehicle=_transform(rows[:, :3], rows[:, 3]),
    )
    return _usable(camera, file, 'sensor')


def read_semantic(path: Path, camera: Camera) -> np.ndarray:
    """(H, W) uint8 train ids from `gtFine/*_labelIds.png`."""
    ids = read_pixels(path, '8-bit label ids', ('L', 'P'))
    check_size(path, ids, camera.width, camera.height)
    present = np.flatnonzero(np.bincount(ids.ravel(), minlength=256))
    unknown = present[~_KNOWN_IDS[present]]
    if unknown.size:
        raise InputError(f'{path}: pixels: unknown label id {unknown[0]}; expected labelIds')
    return ID_TO_TRAIN_ID[ids]


def read_disparity(path: Path, camera: Camera) -> np.ndarray:
    """(H, W) float32 metres from a 16-bit disparity p: Z = fx·b / ((p - 1) / 256), NaN for p ≤ 1.

    Far values are kept as they are (p = 2 gives kilometres): losses and metrics apply their caps.
    """
    # Older Pillow versions call 16-bit PNG pixels "I".
    codes = read_pixels(path, '16-bit disparity', ('I;16', 'I')).astype(np.uint16, copy=False)
    check_size(path, codes, camera.width, camera.height)
    assert camera.baseline_m is not None
    depth_of_code = np.full(1 << 16, np.nan, np.float32)
    depth_of_code[2:] = camera.fx * camera.baseline_m * 256 / np.arange(1, (1 << 16) - 1)
    return depth_of_code[codes]


def read_timestamp(path: Path) -> int:
    """Nanoseconds from `timestamp/*.txt`."""
    try:
        stamp_ns = int(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f'{path}: content: expected an integer in ns ({error})') from error
    if stamp_ns < 0:
        raise InputError(f'{path}: content: {stamp_ns} ns is negative')
    return stamp_ns


def read_objects(path: Path, camera: Camera) -> tuple[Objects3D, np.ndarray]:
    """Boxes of the six classes in C (float32), and ignore rectangles (M, 4) x1, y1, x2, y2.

    Objects of other labels (trailer, caravan, …) carry no score; what they show is ignored.
    """
    file = JsonFile(path)
    for key, expected in (('imgWidth', camera.width), ('imgHeight', camera.height)):
        if file.number(key) != expected:
            raise file.fault(f'{file.value(key)}, its image has {expected}', key)
    read_sensor(path)  # not used here, but the official evaluation fails without it
    ignore_px = [
        _corners(file.numbers(4, 'ignore', i, '2d')) for i in range(file.length('ignore'))
    ]
    rows = []
    for index in range(file.length('objects')):
        row = _read_object(file, 'objects', index)
        if row['class_id'] is None:
            ignore_px.append(row['box_2d_px'])
        else:
            rows.append(row)
    return _to_camera(rows, camera), np.array(ignore_px, np.float32).reshape(-1, 4)


def result_document(objects: Objects3D, camera: Camera) -> dict[str, Any]:
    """The JSON document of the official result format: boxes in V, rectangles as x, y, w, h.

    A box with a non-finite number cannot be written and is left out.
    """
    center, size, rotation = (
        value.double() for value in (objects.center_cam, objects.size_lwh_m, objects.rotation_cam)
    )
    vehicle_R_camera, vehicle_t_camera = _rigid(camera, inverse=True)
    corners = geometry.box_corners(center, size, geometry.rotation_from_quaternion(rotation))
    intrinsics = torch.tensor([camera.fx, camera.fy, camera.u0, camera.v0], dtype=torch.float64)
    columns = {
        'modal': objects.box_2d_px.double(),
        'amodal': geometry.amodal_boxes(corners, intrinsics, camera.width, camera.height),
        'center': center @ vehicle_R_camera.T + vehicle_t_camera,
        'dimensions': size,
        'rotation': _rotated(vehicle_R_camera, rotation),
        'score': objects.score.double()[:, None].clamp(0, 1),
    }
    finite = torch.stack([value.isfinite().all(1) for value in columns.values()]).all(0)
    documents = []
    for index in finite.nonzero()[:, 0].tolist():
        row = {name: value[index].tolist() for name, value in columns.items()}
        documents.append(
            {
                '2d': {name: _xywh(row[name]) for name in ('modal', 'amodal')},
                '3d': {name: row[name] for name in ('center', 'dimensions', 'rotation')},
                'label': DETECTION_CLASSES[int(objects.class_id[index])],
                'score': row['score'][0],
            }
        )
    return {'objects': documents}


def _read_object(file: JsonFile, *keys: Key) -> dict[str, Any]:
    label = file.text(*keys, 'label')
    if label not in LABEL_BY_NAME:
        raise file.fault(f'unknown label {label!r}', *keys, 'label')
    file.number(*keys, 'score')  # constant in ground truth, but the official evaluation needs it
    amodal = file.numbers(4, *keys, '2d', 'amodal')
    modal = file.numbers(4, *keys, '2d', 'modal') if file.has(*keys, '2d', 'modal') else amodal
    size = file.numbers(3, *keys, '3d', 'dimensions')
    if size.min() <= 0:
        raise file.fault(f'{size.tolist()} m: not all positive', *keys, '3d', 'dimensions')
    rotation = file.numbers(4, *keys, '3d', 'rotation')
    norm = np.linalg.norm(rotation)
    if abs(norm - 1) > 1e-3:
        raise file.fault(f'not a unit quaternion, its norm is {norm:g}', *keys, '3d', 'rotation')
    return {
        'class_id': DETECTION_CLASSES.index(label) if label in DETECTION_CLASSES else None,
        'box_2d_px': _corners(modal),
        'center': file.numbers(3, *keys, '3d', 'center'),
        'size': size,
        'rotation': rotation / norm,
    }


def _to_camera(rows: list[dict[str, Any]], camera: Camera) -> Objects3D:
    if not rows:
        return Objects3D.empty()
    column = {key: torch.tensor(np.array([row[key] for row in rows])) for key in rows[0]}
    camera_R_vehicle, camera_t_vehicle = _rigid(camera)
    return Objects3D(
        class_id=column['class_id'].long(),
        score=torch.ones(len(rows)),
        center_cam=(column['center'] @ camera_R_vehicle.T + camera_t_vehicle).float(),
        size_lwh_m=column['size'].float(),
        rotation_cam=_rotated(camera_R_vehicle, column['rotation']).float(),
        box_2d_px=column['box_2d_px'].float(),
        depth_sigma_m=torch.zeros(len(rows)),
    )


def _rotated(rotation: Tensor, quaternion: Tensor) -> Tensor:
    """(N, 4) quaternions after one more rotation (3, 3)."""
    left = geometry.quaternion_from_rotation(rotation).expand_as(quaternion)
    return torch.nn.functional.normalize(geometry.quaternion_multiply(left, quaternion), dim=-1)


def _rigid(camera: Camera, inverse: bool = False) -> tuple[Tensor, Tensor]:
    """R and t of V → C, or of C → V."""
    if camera.camera_T_vehicle is None:
        raise InputError('this camera has no extrinsic, but boxes are exchanged in frame V')
    rotation, translation = camera.camera_T_vehicle[:3, :3], camera.camera_T_vehicle[:3, 3]
    if inverse:
        rotation, translation = rotation.T, -rotation.T @ translation
    return torch.tensor(rotation), torch.tensor(translation)


def _transform(rotation: np.ndarray, translation: np.ndarray) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation, translation
    return matrix


def _usable(camera: Camera, file: JsonFile, *keys: Key) -> Camera:
    fault = camera.fault()
    if fault is not None:
        raise file.fault(fault, *keys)
    return camera


def _positive(file: JsonFile, *keys: Key) -> float:
    value = file.number(*keys)
    if value <= 0:
        raise file.fault(f'{value:g} is not positive', *keys)
    return value


def _side(file: JsonFile, *keys: Key) -> int:
    value = file.number(*keys)
    if value not in range(1, MAX_SIDE + 1):
        raise file.fault(f'{value:g} is not a whole number from 1 to {MAX_SIDE}', *keys)
    return int(value)


def _corners(xywh: np.ndarray) -> list[float]:
    x, y, w, h = xywh.tolist()
    return [x, y, x + w, y + h]


def _xywh(corners: list[float]) -> list[float]:
    x1, y1, x2, y2 = corners
    return [x1, y1, x2 - x1, y2 - y1]
