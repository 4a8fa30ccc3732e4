"""3D boxes as RViz markers: edges, heading arrow, class and distance."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from builtin_interfaces.msg import Duration
from geometry_msgs.msg import Point, Vector3
from std_msgs.msg import ColorRGBA, Header
from torch import Tensor
from visualization_msgs.msg import Marker, MarkerArray

from tag_perception.core.geometry import EDGES, box_corners, rotation_from_quaternion
from tag_perception.core.labels import DETECTION_CLASSES
from tag_perception.core.structures import Objects3D
from tag_perception.overlay import DETECTION_COLORS
from tag_perception.ros.messages import OPTICAL_T_CAMERA

LINE_WIDTH_M = 0.06
TEXT_HEIGHT_M = 0.7
LIFETIME_S = 2
"""Markers vanish by themselves when the node falls silent."""


def to_markers(
    header: Header, boxes: Objects3D, frame_T_camera: np.ndarray = OPTICAL_T_CAMERA
) -> MarkerArray:
    """Markers in the frame that `header` names; the first deletes all older ones.

    `frame_T_camera` (4, 4) leads from C to that frame, which is S unless told otherwise.
    """
    result = MarkerArray(markers=[Marker(header=header, action=Marker.DELETEALL)])
    pose = torch.from_numpy(np.asarray(frame_T_camera, np.float64))

    def place(points_cam: Tensor) -> np.ndarray:
        return (points_cam @ pose[:3, :3].T + pose[:3, 3]).numpy()

    center, size = boxes.center_cam.double(), boxes.size_lwh_m.double()
    rotation = rotation_from_quaternion(boxes.rotation_cam.double())
    corners = box_corners(center, size, rotation)
    edges = place(corners[:, torch.tensor(EDGES).ravel()])  # (N, 24, 3)
    ahead = center + rotation[..., 0] * size[:, :1]  # half a length in front of the box
    headings = place(torch.stack((center, ahead), 1))
    up = corners.new_tensor([0.0, 0.0, TEXT_HEIGHT_M])
    tops = place(corners[:, 4:].mean(1) + up)[:, None]
    distances = center.norm(dim=-1).tolist()
    for index, class_id in enumerate(boxes.class_id.tolist()):
        red, green, blue = (channel / 255 for channel in DETECTION_COLORS[class_id])
        style = {
            'header': header,
            'id': index,
            'color': ColorRGBA(r=red, g=green, b=blue, a=1.0),
            'lifetime': Duration(sec=LIFETIME_S),
        }
        label = f'{DETECTION_CLASSES[class_id]} {distances[index]:.0f} m'
        result.markers += [
            _marker('edges', Marker.LINE_LIST, edges[index], **style),
            _marker('heading', Marker.ARROW, headings[index], **style),
            _marker('label', Marker.TEXT_VIEW_FACING, tops[index], text=label, **style),
        ]
    return result


def _marker(name: str, kind: int, points: np.ndarray, **values: Any) -> Marker:
    marker = Marker(ns=name, type=kind, action=Marker.ADD, **values)
    marker.pose.orientation.w = 1.0
    positions = [Point(x=x, y=y, z=z) for x, y, z in points.tolist()]
    if kind == Marker.TEXT_VIEW_FACING:
        marker.pose.position = positions[0]
        marker.scale = Vector3(z=TEXT_HEIGHT_M)
    else:
        marker.points = positions
        width = LINE_WIDTH_M if kind == Marker.LINE_LIST else 2 * LINE_WIDTH_M
        marker.scale = Vector3(x=width, y=2 * width, z=0.0)  # an arrow's shaft and head
    return marker
