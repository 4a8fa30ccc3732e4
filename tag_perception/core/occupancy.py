"""Where can one drive? A grid on the ground: free, occupied or unknown, from all three tasks.

The grid lies in a frame G with x forward, y left, z up: the vehicle's, given by `pose`, or the
camera's own frame C. Heights are measured above the ground of the frame in hand: a plane fitted to
the road pixels, which follows the pitch of a braking car; the nominal ground where that fails.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tag_perception.config import ConfigError
from tag_perception.core.geometry import (
    camera_to_optical,
    optical_to_camera,
    project,
    rotation_from_quaternion,
    unproject,
)
from tag_perception.core.labels import SEMANTIC_CLASSES, UNLABELLED
from tag_perception.core.structures import Camera, Objects3D, Scene

FREE, OCCUPIED, UNKNOWN = 0, 100, -1
"""Values of nav_msgs/OccupancyGrid."""

GROUND = ('road', 'sidewalk')
NO_OBSTACLE = (*GROUND, 'terrain', 'sky')
"""Classes that never occupy a cell; terrain is not free either."""

FAR_M = 100.0
"""Depths beyond this are not used."""
COLUMNS = 512
"""Points are taken from about this many columns of the image."""
MIN_POINTS = 2
"""Obstacle points that occupy a cell: a single one may be a blur between two depths."""
MIN_GROUND_POINTS = 100
MAX_TILT = 0.15
"""Largest believable slope of the fitted ground, metres per metre (8.5°)."""
MAX_GROUND_ERROR_M = 0.7
"""Largest believable distance between fitted and nominal ground below the camera."""
DEPTH_TOLERANCE = 0.25
"""A cell is free where the depth map puts its pixel at the cell's distance, within this share."""


@dataclass(frozen=True)
class GridConfig:
    """Extent of the obstacle grid and what counts as an obstacle."""

    resolution_m: float = 0.25
    """Side of a cell, metres."""
    ahead_m: float = 50.0
    """The grid reaches from the origin of its frame this far forward, metres."""
    side_m: float = 15.0
    """The grid reaches this far to either side, metres."""
    min_height_m: float = 0.3
    """What is lower above the ground does not occupy a cell, metres."""
    max_height_m: float = 2.5
    """What is higher above the ground does not occupy a cell (bridges, signs), metres."""
    camera_height_m: float = 1.3
    """Height of the camera above the ground, metres; used where target_frame is empty."""

    def __post_init__(self) -> None:
        if not self.min_height_m < self.max_height_m:
            raise ConfigError(
                f'obstacles need min_height_m < max_height_m, '
                f'got {self.min_height_m} and {self.max_height_m}'
            )
        if max(self.shape) > 4096:
            raise ConfigError(
                f'obstacle grid of {self.shape[1]}×{self.shape[0]} cells is larger than 4096: '
                'make resolution_m larger or the extent smaller'
            )

    @property
    def shape(self) -> tuple[int, int]:
        """Cells across (y) and ahead (x)."""
        return round(2 * self.side_m / self.resolution_m), round(self.ahead_m / self.resolution_m)


@dataclass(frozen=True)
class Ground:
    """The plane z = slope · (x, y) + height in G, metres."""

    slope: Tensor
    """(2,) metres per metre."""
    height: float

    def at(self, xy: Tensor) -> Tensor:
        """Height z (…) of the ground at (…, 2)."""
        return xy @ self.slope + self.height


def occupancy(
    scene: Scene, camera: Camera, grid: GridConfig, grid_T_camera: np.ndarray | None = None
) -> Tensor | None:
    """(across, ahead) int8 cells; row 0 is the right edge, column 0 the nearest. None: no mask,
    no depth.

    `grid_T_camera` (4, 4) is the pose of C in G, whose ground is z = 0; without it G is C and the
    ground lies `camera_height_m` below. Boxes occupy their footprint, obstacle pixels their cell;
    what is seen as road or sidewalk is free; the rest is unknown.
    """
    if scene.semantic is None or scene.depth is None:
        return None
    pose = torch.eye(4, dtype=torch.float64)
    if grid_T_camera is not None:
        pose = torch.from_numpy(np.asarray(grid_T_camera, np.float64))
    nominal = -grid.camera_height_m if grid_T_camera is None else 0.0
    points, classes = _points(scene.semantic, scene.depth, camera, pose)
    ground = fit_ground(points[_one_of(classes, GROUND)], nominal, pose[:3, 3])
    cells = torch.full(grid.shape, UNKNOWN, dtype=torch.int8)
    cells[_seen_as_ground(scene.semantic, scene.depth, camera, pose, ground, grid)] = FREE
    obstacle = ~_one_of(classes, NO_OBSTACLE) & (classes != UNLABELLED)
    cells[_hit(points[obstacle], ground, grid)] = OCCUPIED
    if scene.detection3d is not None:
        cells[_covered(scene.detection3d, pose, grid)] = OCCUPIED
    return cells


def fit_ground(points: Tensor, nominal: float, camera: Tensor) -> Ground:
    """The plane through ground points (N, 3) in G, by least squares that drop outliers.

    The plane z = nominal where points are few or the fit is not believable: steep, or far from
    nominal below the position of the camera (3,).
    """
    fallback = Ground(points.new_zeros(2), nominal)
    kept = points
    for tolerance_m in (0.5, 0.2, None):
        if len(kept) < MIN_GROUND_POINTS:
            return fallback
        # Near points are many and exact: by weight they count as much as the far ones.
        design = torch.cat((kept[:, :2], torch.ones_like(kept[:, :1])), 1)
        solution = torch.linalg.lstsq(design, kept[:, 2:], driver='gelsd').solution[:, 0]
        ground = Ground(solution[:2], float(solution[2]))
        if tolerance_m is not None:
            kept = points[(points[:, 2] - ground.at(points[:, :2])).abs() < tolerance_m]
    below = float(ground.at(camera[:2])) - nominal
    believable = float(ground.slope.norm()) < MAX_TILT and abs(below) < MAX_GROUND_ERROR_M
    return ground if believable else fallback


def _points(
    semantic: Tensor, depth: Tensor, camera: Camera, pose: Tensor
) -> tuple[Tensor, Tensor]:
    """Points (N, 3) in G and their classes (N,), from every few pixels."""
    stride = max(1, camera.width // COLUMNS)
    depth_m = depth[::stride, ::stride].double()
    usable = (depth_m > 0) & (depth_m < FAR_M)  # False for NaN
    v, u = torch.nonzero(usable, as_tuple=True)
    pixel = torch.stack((u, v), -1).double() * stride
    points = optical_to_camera(unproject(pixel, depth_m[usable], _intrinsics(camera)))
    return points @ pose[:3, :3].T + pose[:3, 3], semantic[::stride, ::stride][usable]


def _seen_as_ground(
    semantic: Tensor, depth: Tensor, camera: Camera, pose: Tensor, ground: Ground, grid: GridConfig
) -> Tensor:
    """(across, ahead) bool: the cell's centre on the ground is a ground pixel at its distance."""
    xy = _centers(grid)
    points = torch.cat((xy, ground.at(xy)[..., None]), -1) - pose[:3, 3]
    optical = camera_to_optical(points @ pose[:3, :3])  # the inverse rotation, for row vectors
    z = optical[..., 2]
    ahead = z > 0.1
    safe = torch.where(ahead[..., None], optical, optical.new_tensor([0.0, 0.0, 1.0]))
    u, v = project(safe, _intrinsics(camera)).round().clamp(-1, 2**20).long().unbind(-1)
    inside = ahead & (u >= 0) & (v >= 0) & (u < camera.width) & (v < camera.height)
    u, v = u * inside, v * inside
    agrees = (depth[v, u] - z).abs() < DEPTH_TOLERANCE * z  # False for NaN
    return inside & agrees & _one_of(semantic[v, u], GROUND)


def _hit(points: Tensor, ground: Ground, grid: GridConfig) -> Tensor:
    """(across, ahead) bool: cells below enough obstacle points (N, 3)."""
    above_m = points[:, 2] - ground.at(points[:, :2])
    points = points[(above_m > grid.min_height_m) & (above_m < grid.max_height_m)]
    across, ahead = grid.shape
    column = (points[:, 0] / grid.resolution_m).floor().long()
    row = ((points[:, 1] + grid.side_m) / grid.resolution_m).floor().long()
    inside = (column >= 0) & (column < ahead) & (row >= 0) & (row < across)
    index = row[inside] * ahead + column[inside]
    counts = torch.bincount(index, minlength=across * ahead)
    return (counts >= MIN_POINTS).reshape(across, ahead)


def _covered(boxes: Objects3D, pose: Tensor, grid: GridConfig) -> Tensor:
    """(across, ahead) bool: cells that touch the footprint of a box."""
    xy = _centers(grid)
    covered = torch.zeros(grid.shape, dtype=torch.bool)
    center = boxes.center_cam.double() @ pose[:3, :3].T + pose[:3, 3]
    heading = pose[:3, :3] @ rotation_from_quaternion(boxes.rotation_cam.double())[..., 0, None]
    reach = boxes.size_lwh_m[:, :2].double() / 2 + grid.resolution_m / 2
    for at, ahead, half in zip(center, heading[..., 0], reach, strict=True):
        front = torch.nn.functional.normalize(ahead[:2], dim=0)
        left = torch.stack((-front[1], front[0]))
        offset = xy - at[:2]
        covered |= ((offset @ front).abs() <= half[0]) & ((offset @ left).abs() <= half[1])
    return covered


def _centers(grid: GridConfig) -> Tensor:
    """(across, ahead, 2) x, y of the cells' centres in G."""
    across, ahead = grid.shape
    x = (torch.arange(ahead, dtype=torch.float64) + 0.5) * grid.resolution_m
    y = (torch.arange(across, dtype=torch.float64) + 0.5) * grid.resolution_m - grid.side_m
    return torch.stack((x.expand(across, ahead), y[:, None].expand(across, ahead)), -1)


def _one_of(classes: Tensor, names: tuple[str, ...]) -> Tensor:
    table = torch.zeros(256, dtype=torch.bool)
    table[[SEMANTIC_CLASSES.index(name) for name in names]] = True
    return table[classes.long()]


def _intrinsics(camera: Camera) -> Tensor:
    return torch.tensor([camera.fx, camera.fy, camera.u0, camera.v0], dtype=torch.float64)
