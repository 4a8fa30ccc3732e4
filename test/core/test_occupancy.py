from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tag_perception.config import ConfigError
from tag_perception.core.geometry import optical_to_camera, quaternion_from_euler, unproject
from tag_perception.core.occupancy import (
    FREE,
    OCCUPIED,
    UNKNOWN,
    GridConfig,
    fit_ground,
    occupancy,
)
from tag_perception.core.structures import Camera, Objects3D, Scene

HEIGHT_M = 1.4
CAMERA = Camera(512, 256, fx=560.0, fy=564.0, u0=258.0, v0=120.0)
GRID = GridConfig(resolution_m=0.5, ahead_m=40.0, side_m=10.0, camera_height_m=HEIGHT_M)
ROAD, BUILDING, SIGN, TERRAIN, SKY, CAR = 0, 2, 7, 9, 10, 13
LEVEL = np.eye(4)
LEVEL[2, 3] = HEIGHT_M


def pose(pitch: float = 0.0, x: float = 0.0) -> np.ndarray:
    """Pose of C in a vehicle frame on the ground; pitch > 0 looks down."""
    matrix = np.eye(4)
    matrix[:3, :3] = [
        [np.cos(pitch), 0, np.sin(pitch)],
        [0, 1, 0],
        [-np.sin(pitch), 0, np.cos(pitch)],
    ]
    matrix[:3, 3] = x, 0.0, HEIGHT_M
    return matrix


def rays(grid_T_camera: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Directions (H, W, 3) in G of the pixels, for a depth of 1, and the camera's position."""
    v, u = torch.meshgrid(torch.arange(256), torch.arange(512), indexing='ij')
    pixel = torch.stack((u, v), -1).double()
    intrinsics = torch.tensor([CAMERA.fx, CAMERA.fy, CAMERA.u0, CAMERA.v0]).double()
    matrix = torch.from_numpy(grid_T_camera)
    directions = optical_to_camera(unproject(pixel, torch.ones(256, 512).double(), intrinsics))
    return directions @ matrix[:3, :3].T, matrix[:3, 3]


def road(grid_T_camera: np.ndarray = LEVEL) -> Scene:
    """An endless flat road under a sky."""
    directions, origin = rays(grid_T_camera)
    depth = -origin[2] / directions[..., 2]
    sky = (depth <= 0) | (depth > 300)
    depth = torch.where(sky, torch.nan, depth).float()
    return Scene(torch.where(sky, SKY, ROAD).to(torch.uint8), depth, Objects3D.empty())


def with_wall(scene: Scene, train_id: int, x: float, low: float, high: float) -> Scene:
    """A board across the whole view at distance x, from height low to high."""
    directions, origin = rays(LEVEL)
    height = origin[2] + x * directions[..., 2]
    seen = (height > low) & (height < high) & ~(scene.depth < x)
    return replace(
        scene,
        semantic=scene.semantic.masked_fill(seen, train_id),
        depth=scene.depth.masked_fill(seen, x),
    )


def at(cells: torch.Tensor, x: float, y: float) -> int:
    return int(cells[int((y + GRID.side_m) / 0.5), int(x / 0.5)])


def box(x: float, y: float, yaw: float = 0.0) -> Objects3D:
    return Objects3D(
        class_id=torch.zeros(1, dtype=torch.int64),
        score=torch.ones(1),
        center_cam=torch.tensor([[x, y, -0.7]]),
        size_lwh_m=torch.tensor([[4.0, 2.0, 1.5]]),
        rotation_cam=quaternion_from_euler(*torch.tensor([[yaw], [0.0], [0.0]])),
        box_2d_px=torch.zeros(1, 4),
        depth_sigma_m=torch.zeros(1),
    )


def test_an_empty_road_is_free_where_it_is_seen():
    cells = occupancy(road(), CAMERA, GRID)
    assert cells.shape == GRID.shape == (40, 80)
    assert cells.dtype == torch.int8
    assert at(cells, 10.0, 0.0) == at(cells, 35.0, 0.0) == at(cells, 35.0, 8.0) == FREE
    assert at(cells, 1.0, 0.0) == UNKNOWN  # below the picture
    assert at(cells, 10.0, 9.0) == UNKNOWN  # beside it
    assert not (cells == OCCUPIED).any()


def test_left_is_left():
    cells = occupancy(replace(road(), detection3d=box(20.0, 4.0)), CAMERA, GRID)
    assert at(cells, 20.2, 4.2) == OCCUPIED
    assert at(cells, 20.2, -4.2) == FREE


@pytest.mark.parametrize(
    ('train_id', 'low', 'high', 'occupied'),
    [
        (BUILDING, 0.0, 3.0, True),
        (CAR, 0.5, 1.0, True),
        (SIGN, 3.0, 5.0, False),  # hangs above
        (BUILDING, 0.05, 0.2, False),  # low enough to drive over
        (TERRAIN, 0.5, 1.0, False),
        (255, 0.5, 1.0, False),
    ],
)
def test_obstacle_pixels_occupy_by_class_and_height(train_id, low, high, occupied):
    cells = occupancy(with_wall(road(), train_id, 15.2, low, high), CAMERA, GRID)
    assert (at(cells, 15.2, 0.0) == OCCUPIED) == occupied
    assert at(cells, 10.0, 0.0) == FREE


def test_what_an_obstacle_hides_is_unknown():
    cells = occupancy(with_wall(road(), BUILDING, 15.2, -0.5, 9.0), CAMERA, GRID)
    assert at(cells, 20.0, 0.0) == at(cells, 35.0, 2.0) == UNKNOWN
    assert at(cells, 14.0, 0.0) == FREE


def test_a_box_occupies_its_turned_footprint():
    cells = occupancy(replace(road(), detection3d=box(20.0, 0.0, np.pi / 2)), CAMERA, GRID)
    assert at(cells, 20.2, 1.7) == at(cells, 20.2, -1.7) == OCCUPIED
    assert at(cells, 21.7, 0.2) == FREE
    occupied = int((cells == OCCUPIED).sum())
    assert 4 * 2 / 0.25 <= occupied <= 5 * 3 / 0.25


@pytest.mark.parametrize('pitch', [-0.06, 0.0, 0.06])
def test_pose_of_the_camera_is_used(pitch):
    matrix = pose(pitch, x=1.7)
    cells = occupancy(road(matrix), CAMERA, GRID, matrix)
    assert at(cells, 12.0, 0.0) == FREE
    assert not (cells == OCCUPIED).any()


@pytest.mark.parametrize('pitch', [-0.05, 0.04])
def test_unknown_pitch_is_taken_from_the_road(pitch):
    """Braking tilts the camera; the pose and the height that we were told do not know it."""
    scene = road(pose(pitch))
    for told in (None, pose(0.0)):
        cells = occupancy(scene, CAMERA, GRID, told)
        assert at(cells, 15.0, 0.0) == at(cells, 30.0, 0.0) == FREE
        assert not (cells == OCCUPIED).any()


def test_ground_fit_ignores_outliers_and_unbelievable_planes():
    random = torch.Generator().manual_seed(0)
    xy = torch.rand(2000, 2, generator=random).double() * torch.tensor([40.0, 10.0])
    camera = torch.zeros(3).double()
    z = 0.02 * xy[:, 0] - 1.4
    z[::10] += 1.0  # sidewalk mistaken for a wall's foot and the like
    ground = fit_ground(torch.cat((xy, z[:, None]), 1), -1.4, camera)
    assert ground.slope.tolist() == pytest.approx([0.02, 0.0], abs=2e-3)
    for steep in (0.4 * xy[:, 0] - 1.4, 0 * z + 3.0):
        ground = fit_ground(torch.cat((xy, steep[:, None]), 1), -1.4, camera)
        assert (ground.slope.tolist(), ground.height) == ([0.0, 0.0], -1.4)
    assert fit_ground(torch.zeros(5, 3).double(), -1.4, camera).height == -1.4


def test_missing_tasks():
    scene = road()
    assert occupancy(replace(scene, semantic=None), CAMERA, GRID) is None
    assert occupancy(replace(scene, depth=None), CAMERA, GRID) is None
    cells = occupancy(replace(scene, detection3d=None), CAMERA, GRID)
    assert at(cells, 15.0, 0.0) == FREE


def test_impossible_grids_are_refused():
    with pytest.raises(ConfigError, match='min_height_m < max_height_m'):
        GridConfig(min_height_m=3.0)
    with pytest.raises(ConfigError, match='larger than 4096'):
        GridConfig(resolution_m=0.01)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_nonsense_gives_a_grid_of_three_values(seed, share):
    random = np.random.default_rng(seed)
    depth = random.lognormal(1, 3, (256, 512)).astype(np.float32)
    depth[random.random(depth.shape) < share] = random.choice([np.nan, np.inf, 0, -5])
    semantic = random.integers(0, 256, depth.shape).astype(np.uint8)
    odd = replace(box(10.0, 0.0), center_cam=torch.tensor([[float('nan'), 1e30, -3.0]]))
    scene = Scene(torch.from_numpy(semantic), torch.from_numpy(depth), odd)
    assert set(occupancy(scene, CAMERA, GRID).unique().tolist()) <= {FREE, OCCUPIED, UNKNOWN}
