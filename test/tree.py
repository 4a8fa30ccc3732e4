"""Tiny Cityscapes-3D trees on disk, written with the official geometry, not the package's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from cityscapesscripts.helpers.box3dImageTransform import CRS_S, Box3dImageTransform
from cityscapesscripts.helpers.box3dImageTransform import Camera as OfficialCamera
from cityscapesscripts.helpers.labels import labels as official_labels
from hypothesis import HealthCheck, settings
from PIL import Image
from pyquaternion import Quaternion

# A busy machine is slow, not wrong: no property test fails by the clock.
settings.register_profile(
    'patient',
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)
settings.load_profile('patient')

VEHICLES = {
    'car': (4.3, 1.8, 1.5),
    'truck': (7.0, 2.4, 3.0),
    'bus': (10.0, 2.5, 3.1),
    'train': (12.0, 2.6, 3.5),
    'motorcycle': (2.1, 0.8, 1.4),
    'bicycle': (1.8, 0.6, 1.3),
}
"""Length, width and height of the six classes, metres."""
EXTRINSIC = {
    'baseline': 0.209313, 'pitch': 0.038, 'roll': 0.0, 'yaw': -0.0195,
    'x': 1.7, 'y': 0.1, 'z': 1.22,
}  # fmt: skip
LABEL_ID = {label.name: label.id for label in official_labels}
COLOR = {label.id: label.color for label in official_labels}


def write_tree(
    root: Path,
    split: str = 'val',
    frames: int = 4,
    size: tuple[int, int] = (128, 256),
    seed: int = 0,
    city: str = 'testburg',
) -> Path:
    """Write labelled frames; each shows one box per class, at a distance that changes by frame."""
    for index in range(frames):
        random = np.random.default_rng([seed, index])
        stem = f'{city}_{seed:06d}_{index + 19:06d}'
        _write_frame(root, split, city, stem, size, index, random)
    return root


def _write_frame(root, split, city, stem, size, index, random) -> None:
    height, width = size
    intrinsic = {
        'fx': 2262.52 * width / 2048, 'fy': 2265.3 * height / 1024,
        'u0': 0.5356 * width, 'v0': 0.5011 * height,
    }  # fmt: skip
    camera_R_vehicle = Quaternion(_camera_in_vehicle()).inverse.rotation_matrix
    position = np.array([EXTRINSIC[key] for key in 'xyz'])
    sensor_T = np.hstack([camera_R_vehicle, -camera_R_vehicle @ position[:, None]])
    camera = OfficialCamera(
        **intrinsic, sensor_T_ISO_8855=sensor_T.tolist(), imgWidth=width, imgHeight=height
    )
    boxes = [_box(camera, label, index, slot, random) for slot, label in enumerate(VEHICLES)]
    boxes.sort(key=lambda box: -box['depth'])
    ids, instances, depth = _paint(camera, boxes, size)
    ignored = [int(0.02 * width), int(0.45 * height), int(0.05 * width), int(0.08 * height)]

    def write(folder: str, suffix: str, content) -> None:
        path = root / folder / split / city / f'{stem}_{suffix}'
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, np.ndarray):
            Image.fromarray(content).save(path)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content))

    colors = np.array([COLOR[i] for i in range(34)], np.int16)[ids]
    noisy = np.clip(colors + random.integers(-20, 21, colors.shape), 0, 255).astype(np.uint8)
    disparity_px = intrinsic['fx'] * EXTRINSIC['baseline'] / depth
    codes = np.where(np.isfinite(depth), np.rint(disparity_px * 256 + 1), 0).astype(np.uint16)
    codes[:2, :] = 1  # "infinitely far": no depth either
    write('leftImg8bit', 'leftImg8bit.png', noisy)
    write('gtFine', 'gtFine_labelIds.png', ids.astype(np.uint8))
    write('gtFine', 'gtFine_instanceIds.png', instances.astype(np.uint16))
    write('disparity', 'disparity.png', codes)
    write('camera', 'camera.json', {'extrinsic': EXTRINSIC, 'intrinsic': intrinsic})
    write('timestamp', 'timestamp.txt', str(round(index * 1e9 / 17)))
    document = {
        'imgWidth': width,
        'imgHeight': height,
        'sensor': {
            'sensor_T_ISO_8855': sensor_T.tolist(),
            **intrinsic,
            'baseline': EXTRINSIC['baseline'],
        },
        'objects': [box['json'] for box in boxes],
        'ignore': [{'2d': ignored, 'label': 'car', 'instanceId': 26}],
    }
    write('gtBbox3d', 'gtBbox3d.json', document)


def _camera_in_vehicle() -> Quaternion:
    yaw, pitch, roll = (
        Quaternion(axis=axis, radians=EXTRINSIC[key])
        for axis, key in (((0, 0, 1), 'yaw'), ((0, 1, 0), 'pitch'), ((1, 0, 0), 'roll'))
    )
    return yaw * pitch * roll


def _box(camera, label, index, slot, random) -> dict:
    """One vehicle in its own sector of the view; its distance changes from frame to frame."""
    distance = 9.0 + 6.0 * ((index + slot) % 4)
    bearing = 0.34 - 0.135 * slot
    size = np.array(VEHICLES[label]) * random.uniform(0.95, 1.05, 3)
    center = [distance, bearing * distance, size[2] / 2]
    rotation = (
        Quaternion(axis=(0, 0, 1), radians=random.uniform(-np.pi, np.pi))
        * Quaternion(axis=(0, 1, 0), radians=random.normal(0, 0.04))
        * Quaternion(axis=(1, 0, 0), radians=random.normal(0, 0.03))
    )
    transform = Box3dImageTransform(camera)
    transform.initialize_box(size, rotation, center)
    x1, y1, x2, y2 = transform.get_amodal_box_2d()
    modal = [x1, y1, 0.9 * (x2 - x1), y2 - y1]
    document = {
        '2d': {'modal': modal, 'amodal': [x1, y1, x2 - x1, y2 - y1]},
        '3d': {
            'center': center, 'dimensions': size.tolist(), 'rotation': rotation.elements.tolist(),
            'type': 'Prototype', 'format': 'CRS_ISO8855',
        },
        'occlusion': 0.1, 'truncation': 0.0, 'instanceId': LABEL_ID[label] * 1000 + index,
        'label': label, 'score': 1.0,
    }  # fmt: skip
    depth = transform.get_parameters(CRS_S)[1][2]
    return {'json': document, 'depth': depth, 'id': LABEL_ID[label], 'modal': modal}


def _paint(camera, boxes, size) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Label ids, instance ids and depth: sky, a strip of every class, road, boxes, own bonnet."""
    height, width = size
    rows = (np.arange(height) - camera.v0) / camera.fy + np.tan(EXTRINSIC['pitch'])
    with np.errstate(divide='ignore'):
        ground = np.where(rows > 0.004, EXTRINSIC['z'] / rows, np.nan)
    depth = np.repeat(ground[:, None], width, 1)
    ids = np.where(np.isfinite(depth), LABEL_ID['road'], LABEL_ID['sky'])
    instances = ids.copy()
    for box in boxes:
        x, y, w, h = (int(value) for value in box['modal'])
        area = slice(y, y + h + 1), slice(x, x + w + 1)
        ids[area], depth[area] = box['id'], box['depth']
        instances[area] = box['json']['instanceId']
    strip = slice(4, 10)
    names = [
        'building', 'wall', 'fence', 'pole', 'traffic light', 'traffic sign', 'vegetation',
        'terrain', 'person', 'rider', 'sidewalk',
    ]  # fmt: skip
    for name, columns in zip(names, np.array_split(np.arange(width), len(names)), strict=True):
        ids[strip, columns] = instances[strip, columns] = LABEL_ID[name]
    depth[strip] = 40.0
    ids[-4:], instances[-4:], depth[-4:] = LABEL_ID['ego vehicle'], LABEL_ID['ego vehicle'], np.nan
    return ids, instances, depth
