"""What planners consume: coloured, labelled points and the obstacle grid, as messages."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from nav_msgs.msg import OccupancyGrid
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header
from torch import Tensor

from tag_perception.core.geometry import OPTICAL_R_CAMERA, quaternion_from_rotation
from tag_perception.core.labels import UNLABELLED
from tag_perception.core.occupancy import GridConfig
from tag_perception.core.structures import Camera
from tag_perception.ros.messages import BIG_ENDIAN

POINT = np.dtype(
    [('x', 'f4'), ('y', 'f4'), ('z', 'f4'), ('rgb', 'u4'), ('label', 'u4')], align=True
)
"""One point in the optical frame S, metres; `rgb` is 0x00RRGGBB in the bits of a float, as PCL
wants it, `label` the train id, 255 where there is no mask."""

FIELDS = [
    PointField(
        name=name,
        offset=offset,
        datatype=PointField.UINT32 if name == 'label' else PointField.FLOAT32,
        count=1,
    )
    for name, (_, offset, *_) in (POINT.fields or {}).items()
]


@dataclass(frozen=True)
class PointsConfig:
    """Density of the point cloud."""

    stride: int = 4
    """~/points has a point for every so many rows and columns of the image, pixels."""


class PointsMessage:
    """One long-lived PointCloud2 whose memory is written in place."""

    def __init__(self) -> None:
        self._message = PointCloud2()
        self._points = np.empty((0, 0), POINT)

    def fill(
        self,
        header: Header,
        image: np.ndarray,
        depth_m: np.ndarray,
        semantic: np.ndarray | None,
        camera: Camera,
        stride: int,
    ) -> PointCloud2:
        """An organised cloud in S: rows and columns of the picture, NaN where there is no depth.

        `image` is (H, W, 3) uint8 RGB, `depth_m` (H, W) float32, `semantic` (H, W) uint8.
        """
        z = depth_m[::stride, ::stride]
        if z.shape != self._points.shape:
            self._allocate(*z.shape)
        rows, columns = (np.arange(n, dtype=np.float32) * stride for n in z.shape)
        points = self._points
        points['x'] = (columns - camera.u0) / camera.fx * z
        points['y'] = (rows - camera.v0)[:, None] / camera.fy * z
        points['z'] = np.where(np.isfinite(z), z, np.nan)
        red, green, blue = np.moveaxis(image[::stride, ::stride].astype(np.uint32), 2, 0)
        points['rgb'] = red << 16 | green << 8 | blue
        points['label'] = UNLABELLED if semantic is None else semantic[::stride, ::stride]
        self._message.header = header
        return self._message

    def _allocate(self, height: int, width: int) -> None:
        self._message = PointCloud2(
            height=height,
            width=width,
            fields=FIELDS,
            is_bigendian=BIG_ENDIAN,
            point_step=POINT.itemsize,
            row_step=POINT.itemsize * width,
            is_dense=False,
        )
        self._message.data.frombytes(bytes(POINT.itemsize * width * height))
        self._points = np.frombuffer(self._message.data, POINT).reshape(height, width)


class GridMessage:
    """One long-lived OccupancyGrid."""

    def __init__(self) -> None:
        self._message = OccupancyGrid()
        self._cells = np.empty((0, 0), np.int8)

    def fill(
        self, header: Header, cells: Tensor, grid: GridConfig, optical: bool
    ) -> OccupancyGrid:
        """The grid (across, ahead) in the frame that `header` names.

        `optical`: that frame is S, in which the ground is no coordinate plane, so the origin is
        turned; else it is a vehicle frame with z up and the ground at z = 0.
        """
        if cells.shape != self._cells.shape:
            self._allocate(*cells.shape)
        np.copyto(self._cells, cells.numpy())
        message = self._message
        message.header = header
        message.info.map_load_time = header.stamp
        message.info.resolution = grid.resolution_m
        corner = np.array([0.0, -grid.side_m, -grid.camera_height_m if optical else 0.0])
        turn = OPTICAL_R_CAMERA if optical else np.eye(3)
        at, origin = turn @ corner, message.info.origin
        origin.position.x, origin.position.y, origin.position.z = at.tolist()
        w, x, y, z = quaternion_from_rotation(torch.from_numpy(turn.copy())).tolist()
        origin.orientation.w, origin.orientation.x = w, x
        origin.orientation.y, origin.orientation.z = y, z
        return message

    def _allocate(self, across: int, ahead: int) -> None:
        self._message = OccupancyGrid()
        self._message.info.height, self._message.info.width = across, ahead
        self._message.data.frombytes(bytes(across * ahead))
        self._cells = np.frombuffer(self._message.data, np.int8).reshape(across, ahead)
