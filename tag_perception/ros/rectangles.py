"""The visible rectangle of every detection, as vision_msgs/Detection2DArray."""

from __future__ import annotations

import numpy as np
import torch
from std_msgs.msg import Header
from torch import Tensor
from vision_msgs.msg import Detection2DArray

from tag_perception.core.structures import Objects3D
from tag_perception.ros import wire
from tag_perception.ros.messages import ClassIdFormat, class_ids
from tag_perception.ros.wire import WireMessage

NO_POSE = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, *[0.0] * 36)
"""Of a hypothesis: position, orientation xyzw, covariance."""


def to_detections_2d(header: Header, boxes: Objects3D, ids: ClassIdFormat) -> WireMessage:
    """A Detection2DArray: the modal rectangles in image pixels, in the order of `~/detections`."""
    values = np.zeros((len(boxes), 49))
    values[:, 0] = boxes.score.numpy()
    values[:, 1:44] = NO_POSE
    corners_px = boxes.box_2d_px.double().numpy()
    values[:, 44:46] = (corners_px[:, :2] + corners_px[:, 2:]) / 2  # at 46 is the angle, 0
    values[:, 47:49] = corners_px[:, 2:] - corners_px[:, :2]
    names = class_ids(ids)
    return wire.detections(
        Detection2DArray, header, [names[i] for i in boxes.class_id.tolist()], values
    )


def to_rectangles(message: Detection2DArray) -> Tensor:
    """(N, 4) float32 x1, y1, x2, y2 pixels; the way back."""
    rows = []
    for detection in message.detections:
        center, box = detection.bbox.center.position, detection.bbox
        half_x, half_y = box.size_x / 2, box.size_y / 2
        rows.append((center.x - half_x, center.y - half_y, center.x + half_x, center.y + half_y))
    return torch.tensor(rows, dtype=torch.float64).reshape(-1, 4).float()
