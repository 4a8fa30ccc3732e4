from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip('rclpy')

from std_msgs.msg import Header

from tag_perception.core.geometry import OPTICAL_R_CAMERA, rotation_from_quaternion
from tag_perception.core.occupancy import GridConfig
from tag_perception.core.structures import Camera
from tag_perception.ros.planning import GridMessage, PointsMessage

CAMERA = Camera(40, 24, fx=30.0, fy=32.0, u0=19.0, v0=12.0)


@pytest.fixture
def cloud():
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (24, 40, 3), np.uint8)
    depth = random.uniform(2, 50, (24, 40)).astype(np.float32)
    depth[0, 0], depth[0, 4] = np.nan, np.inf
    semantic = random.integers(0, 19, (24, 40), np.uint8)
    message = PointsMessage().fill(Header(frame_id='s'), image, depth, semantic, CAMERA, 4)
    return message, image, depth, semantic


def columns(message) -> dict[str, np.ndarray]:
    """Read the fields as a consumer does: by offset and datatype."""
    kinds = {7: np.float32, 6: np.uint32}
    raw = bytes(message.data)
    return {
        field.name: np.ndarray(
            (message.height, message.width),
            kinds[field.datatype],
            raw,
            field.offset,
            (message.row_step, message.point_step),
        )
        for field in message.fields
    }


def test_points_project_back_to_their_pixels(cloud):
    message, image, depth, semantic = cloud
    assert (message.height, message.width, message.is_dense) == (6, 10, False)
    assert len(message.data) == message.row_step * message.height
    found = columns(message)
    usable = np.isfinite(depth[::4, ::4])
    v, u = np.mgrid[0:24:4, 0:40:4]
    x, y, z = (found[name][usable] for name in 'xyz')
    np.testing.assert_array_equal(z, depth[::4, ::4][usable])
    np.testing.assert_allclose(x / z * CAMERA.fx + CAMERA.u0, u[usable], atol=1e-4)
    np.testing.assert_allclose(y / z * CAMERA.fy + CAMERA.v0, v[usable], atol=1e-4)
    assert np.isnan(found['z'][~usable]).all()
    np.testing.assert_array_equal(found['label'], semantic[::4, ::4])
    rgb = found['rgb'].view(np.uint32)
    np.testing.assert_array_equal(rgb >> 16, image[::4, ::4, 0])
    np.testing.assert_array_equal(rgb & 255, image[::4, ::4, 2])


def test_without_a_mask_points_are_unlabelled():
    points, image = PointsMessage(), np.zeros((24, 40, 3), np.uint8)
    depth = np.ones((24, 40), np.float32)
    message = points.fill(Header(), image, depth, None, CAMERA, 1)
    assert (columns(message)['label'] == 255).all()
    assert points.fill(Header(), image, depth, None, CAMERA, 3).width == 14  # and back again


@pytest.mark.parametrize('optical', [True, False])
def test_a_cell_lies_where_the_origin_says(optical):
    grid = GridConfig(resolution_m=0.5, ahead_m=20.0, side_m=5.0, camera_height_m=1.3)
    cells = torch.full(grid.shape, -1, dtype=torch.int8)
    cells[14, 30] = 100  # x = 15.25, y = 2.25
    message = GridMessage().fill(Header(frame_id='f'), cells, grid, optical)
    info = message.info
    assert (info.width, info.height) == (40, 20)
    index = list(message.data).index(100)
    cell = np.array([index % info.width + 0.5, index // info.width + 0.5, 0]) * info.resolution
    at, turn = info.origin.position, info.origin.orientation
    rotation = rotation_from_quaternion(torch.tensor([turn.w, turn.x, turn.y, turn.z]))
    found = rotation.numpy() @ cell + [at.x, at.y, at.z]
    expected = np.array([15.25, 2.25, -1.3 if optical else 0.0])
    np.testing.assert_allclose(
        found, OPTICAL_R_CAMERA @ expected if optical else expected, atol=1e-6
    )
