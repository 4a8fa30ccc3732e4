"""The one Cityscapes class table: ids, train ids, colours, and the six detection classes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

UNLABELLED = 255
"""Train id of pixels that are not scored; vision_msgs/LabelInfo's "UNLABELED" for uint8."""


class Label(NamedTuple):
    """One row of the official table; `train_id` is 255 for classes that are not evaluated."""

    name: str
    id: int
    train_id: int
    color: tuple[int, int, int]


LABELS = (
    Label('unlabeled', 0, 255, (0, 0, 0)),
    Label('ego vehicle', 1, 255, (0, 0, 0)),
    Label('rectification border', 2, 255, (0, 0, 0)),
    Label('out of roi', 3, 255, (0, 0, 0)),
    Label('static', 4, 255, (0, 0, 0)),
    Label('dynamic', 5, 255, (111, 74, 0)),
    Label('ground', 6, 255, (81, 0, 81)),
    Label('road', 7, 0, (128, 64, 128)),
    Label('sidewalk', 8, 1, (244, 35, 232)),
    Label('parking', 9, 255, (250, 170, 160)),
    Label('rail track', 10, 255, (230, 150, 140)),
    Label('building', 11, 2, (70, 70, 70)),
    Label('wall', 12, 3, (102, 102, 156)),
    Label('fence', 13, 4, (190, 153, 153)),
    Label('guard rail', 14, 255, (180, 165, 180)),
    Label('bridge', 15, 255, (150, 100, 100)),
    Label('tunnel', 16, 255, (150, 120, 90)),
    Label('pole', 17, 5, (153, 153, 153)),
    Label('polegroup', 18, 255, (153, 153, 153)),
    Label('traffic light', 19, 6, (250, 170, 30)),
    Label('traffic sign', 20, 7, (220, 220, 0)),
    Label('vegetation', 21, 8, (107, 142, 35)),
    Label('terrain', 22, 9, (152, 251, 152)),
    Label('sky', 23, 10, (70, 130, 180)),
    Label('person', 24, 11, (220, 20, 60)),
    Label('rider', 25, 12, (255, 0, 0)),
    Label('car', 26, 13, (0, 0, 142)),
    Label('truck', 27, 14, (0, 0, 70)),
    Label('bus', 28, 15, (0, 60, 100)),
    Label('caravan', 29, 255, (0, 0, 90)),
    Label('trailer', 30, 255, (0, 0, 110)),
    Label('train', 31, 16, (0, 80, 100)),
    Label('motorcycle', 32, 17, (0, 0, 230)),
    Label('bicycle', 33, 18, (119, 11, 32)),
)

SEMANTIC_CLASSES = tuple(
    label.name
    for label in sorted((x for x in LABELS if x.train_id != UNLABELLED), key=lambda x: x.train_id)
)
"""Names of the 19 evaluated classes, indexed by train id."""

DETECTION_CLASSES = ('car', 'truck', 'bus', 'train', 'motorcycle', 'bicycle')
"""Names of the six classes with 3D boxes, indexed by detection class id."""

LABEL_BY_NAME = {label.name: label for label in LABELS}
TRAIN_ID = {name: index for index, name in enumerate(SEMANTIC_CLASSES)}
SKY = TRAIN_ID['sky']

DETECTION_TRAIN_IDS = tuple(TRAIN_ID[name] for name in DETECTION_CLASSES)
"""Semantic train id of each detection class."""


def _id_to_train_id() -> np.ndarray:
    table = np.full(256, UNLABELLED, np.uint8)
    for label in LABELS:
        table[label.id] = label.train_id
    return table


def _palette() -> np.ndarray:
    colors = np.zeros((256, 3), np.uint8)
    for label in LABELS:
        if label.train_id != UNLABELLED:
            colors[label.train_id] = label.color
    return colors


ID_TO_TRAIN_ID = _id_to_train_id()
"""(256,) uint8 table. One look-up, never in place: label ids and train ids overlap."""

TRAIN_ID_TO_ID = np.array([LABEL_BY_NAME[name].id for name in SEMANTIC_CLASSES], np.uint8)
"""(19,) uint8 table, the inverse for the evaluated classes (the official tools read label ids)."""

PALETTE = _palette()
"""(256, 3) uint8 RGB colour per train id; black for 255."""
