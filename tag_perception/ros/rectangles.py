"""The visible rectangle of every detection, as vision_msgs/Detection2DArray."""

from __future__ import annotations

import torch
from std_msgs.msg import Header
from torch import Tensor
from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose

from tag_perception.core.structures import Objects3D
from tag_perception.ros.messages import ClassIdFormat, class_ids


class RectanglesMessage:
    """One long-lived Detection2DArray; its detections are reused, for making them costs most."""

    def __init__(self) -> None:
        self._message = Detection2DArray()
        self._pool: list[Detection2D] = []

    def fill(self, header: Header, boxes: Objects3D, ids: ClassIdFormat) -> Detection2DArray:
        """The modal rectangles in image pixels, in the order of `~/detections`."""
        while len(self._pool) < len(boxes):
            self._pool.append(Detection2D(results=[ObjectHypothesisWithPose()]))
        names = class_ids(ids)
        rows = zip(
            boxes.class_id.tolist(),
            boxes.score.tolist(),
            boxes.box_2d_px.double().tolist(),
            strict=True,
        )
        for detection, (class_id, score, (x1, y1, x2, y2)) in zip(self._pool, rows):  # noqa: B905
            detection.header = header
            hypothesis, box = detection.results[0].hypothesis, detection.bbox
            hypothesis.class_id, hypothesis.score = names[class_id], score
            box.center.position.x, box.center.position.y = (x1 + x2) / 2, (y1 + y2) / 2
            box.size_x, box.size_y = x2 - x1, y2 - y1
        self._message.header = header
        self._message.detections = self._pool[: len(boxes)]
        return self._message


def to_rectangles(message: Detection2DArray) -> Tensor:
    """(N, 4) float32 x1, y1, x2, y2 pixels; the way back."""
    rows = []
    for detection in message.detections:
        center, box = detection.bbox.center.position, detection.bbox
        half_x, half_y = box.size_x / 2, box.size_y / 2
        rows.append((center.x - half_x, center.y - half_y, center.x + half_x, center.y + half_y))
    return torch.tensor(rows, dtype=torch.float64).reshape(-1, 4).float()
