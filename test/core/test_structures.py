"""The types: resizing a camera, selecting boxes, taking an image out of a batch."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tag_perception.core.structures import Camera, Objects3D, Scene

CAMERA = Camera(2048, 1024, fx=2262.52, fy=2265.3, u0=1096.98, v0=513.137)


def objects(*shape: int) -> Objects3D:
    """Boxes whose every value tells its index."""
    index = torch.arange(math.prod(shape)).reshape(shape)
    widths = {
        'center_cam': 3, 'size_lwh_m': 3, 'rotation_cam': 4, 'box_2d_px': 4,
        'score': 0, 'depth_sigma_m': 0,
    }  # fmt: skip
    values = {
        name: index[..., None].expand(*shape, width).float() if width else index.float()
        for name, width in widths.items()
    }
    return Objects3D(class_id=index, **values)


@given(width=st.integers(32, 4096), height=st.integers(32, 4096))
def test_resized_camera_sees_the_same_ray_at_the_same_place(width, height):
    """The corners of the image area, half a pixel outside the outer centres, stay corners."""
    small = CAMERA.resized(width, height)
    for edge_x, edge_y in ((0, 0), (1, 1), (0.3, 0.8)):
        rays = [
            np.linalg.solve(c.K, [edge_x * c.width - 0.5, edge_y * c.height - 0.5, 1])
            for c in (CAMERA, small)
        ]
        np.testing.assert_allclose(rays[0], rays[1], atol=1e-12)
    back = small.resized(CAMERA.width, CAMERA.height)
    np.testing.assert_allclose(back.K, CAMERA.K, rtol=1e-12)


def test_resized_camera_keeps_what_does_not_depend_on_pixels():
    camera = dataclasses.replace(CAMERA, baseline_m=0.2, camera_T_vehicle=np.eye(4))
    small = camera.resized(1024, 512)
    assert small.baseline_m == 0.2
    assert small.camera_T_vehicle is camera.camera_T_vehicle


@pytest.mark.parametrize(
    ('change', 'says'),
    [
        ({}, None),
        ({'fx': 0.0}, 'fx = 0'),
        ({'fy': -1.0}, 'fy = -1'),
        ({'u0': math.nan}, 'not finite'),
        ({'v0': math.inf}, 'not finite'),
        ({'fx': 0.55, 'fy': 1.1}, 'is it normalised? fx = 0.55'),
        ({'fx': 1.0, 'fy': 1e6}, None),
        ({'v0': -2e6}, 'beyond 1e+06 pixels'),
    ],
)
def test_fault_names_what_is_wrong(change, says):
    fault = dataclasses.replace(CAMERA, **change).fault()
    assert fault is None if says is None else says in fault


def test_objects_are_selected_together():
    boxes = objects(5)
    assert len(boxes) == 5
    for selection, expected in (
        (slice(1, 3), [1, 2]),
        (boxes.score > 2, [3, 4]),
        (torch.tensor([4, 0]), [4, 0]),
    ):
        chosen = boxes[selection]
        for field in dataclasses.fields(chosen):
            values = getattr(chosen, field.name)
            assert values.reshape(len(chosen), -1)[:, 0].tolist() == expected, field.name


def test_empty_objects_have_the_fields_of_full_ones():
    for field in dataclasses.fields(Objects3D):
        empty, full = getattr(Objects3D.empty(), field.name), getattr(objects(2), field.name)
        assert empty.shape[1:] == full.shape[1:], field.name
        assert empty.dtype == full.dtype, field.name
        assert len(empty) == 0


def test_one_image_of_a_batched_scene():
    scene = Scene(
        semantic=torch.zeros(2, 4, 6, dtype=torch.uint8),
        depth=None,
        detection3d=objects(2, 3),
    )
    second = scene[1].cpu()
    assert second.semantic.shape == (4, 6)
    assert second.depth is None
    assert second.detection3d.class_id.tolist() == [3, 4, 5]


def test_scene_moves_to_a_device():
    scene = Scene(semantic=torch.zeros(2, 2), depth=None, detection3d=objects(1)).to('meta')
    assert scene.semantic.is_meta
    assert scene.detection3d.center_cam.is_meta
