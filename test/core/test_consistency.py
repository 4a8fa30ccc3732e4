from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tag_perception.core.consistency import consistency, enter_box
from tag_perception.core.geometry import (
    amodal_boxes,
    box_corners,
    quaternion_from_euler,
    rotation_from_quaternion,
)
from tag_perception.core.structures import Camera, Objects3D, Scene

CAMERA = Camera(256, 128, fx=280.0, fy=282.0, u0=130.0, v0=66.0)
CAR = 13


def box(distance=12.0, yaw=0.6, left=1.0, class_id=0) -> Objects3D:
    angles = (torch.tensor([value]) for value in (yaw, -0.02, 0.03))
    result = Objects3D(
        class_id=torch.tensor([class_id]),
        score=torch.ones(1),
        center_cam=torch.tensor([[distance, left, -0.4]]),
        size_lwh_m=torch.tensor([[4.2, 1.8, 1.5]]),
        rotation_cam=quaternion_from_euler(*angles),
        box_2d_px=torch.zeros(1, 4),
        depth_sigma_m=torch.zeros(1),
    )
    rotation = rotation_from_quaternion(result.rotation_cam)
    corners = box_corners(result.center_cam, result.size_lwh_m, rotation)
    intrinsics = torch.tensor([CAMERA.fx, CAMERA.fy, CAMERA.u0, CAMERA.v0])
    return replace(result, box_2d_px=amodal_boxes(corners, intrinsics, 256, 128))


def seen(target: Objects3D) -> Scene:
    """The scene of a perfect network: the box drawn ray by ray before a wall at 50 m."""
    v, u = torch.meshgrid(torch.arange(128), torch.arange(256), indexing='ij')
    entry = enter_box(torch.stack((u, v), -1).reshape(-1, 2).double(), target, CAMERA)
    entry = entry.reshape(128, 256).float()
    hit = entry.isfinite()
    semantic = torch.where(hit, CAR, 2).to(torch.uint8)
    return Scene(semantic, torch.where(hit, entry, 50.0), target)


@pytest.mark.parametrize('yaw', [0.0, 0.6, 1.57, -2.5])
def test_agreement_of_a_perfect_network_is_one(yaw):
    assert consistency(seen(box(yaw=yaw)), CAMERA).item() == pytest.approx(1.0, abs=0.01)


def test_the_nearest_ray_enters_at_the_face():
    ahead = replace(box(yaw=0.0, left=0.0), rotation_cam=torch.tensor([[1.0, 0.0, 0.0, 0.0]]))
    depth = enter_box(torch.tensor([[130.0, 66.0 + 0.4 / 10 * 282]]).double(), ahead, CAMERA)
    assert depth.item() == pytest.approx(12.0 - 2.1)
    assert enter_box(torch.tensor([[1.0, 1.0]]).double(), ahead, CAMERA).item() == torch.inf


def test_score_is_one_minus_the_relative_difference():
    scene = seen(box())
    for factor in (0.8, 1.1, 1.3):
        shifted = replace(scene, depth=scene.depth * factor)
        expected = 1 - abs(factor - 1)
        assert consistency(shifted, CAMERA).item() == pytest.approx(expected, abs=0.01)
    assert consistency(replace(scene, depth=scene.depth * 9), CAMERA).item() == 0.0


def test_a_box_that_the_mask_or_the_depth_does_not_know_scores_zero():
    scene = seen(box())
    other = replace(scene, detection3d=box(class_id=1))
    assert consistency(other, CAMERA).item() == 0.0
    assert consistency(replace(scene, depth=scene.depth * torch.nan), CAMERA).item() == 0.0


def test_missing_tasks_and_no_boxes():
    scene = seen(box())
    for task in ('semantic', 'depth', 'detection3d'):
        assert consistency(replace(scene, **{task: None}), CAMERA) is None
    assert consistency(replace(scene, detection3d=Objects3D.empty()), CAMERA).shape == (0,)


def test_order_is_that_of_the_boxes():
    right, wrong = box(), replace(box(), center_cam=torch.tensor([[24.0, 2.0, -0.8]]))
    both = Objects3D(**{k: torch.cat((getattr(wrong, k), getattr(right, k))) for k in vars(right)})
    scores = consistency(replace(seen(right), detection3d=both), CAMERA)
    assert scores[0] < 0.7
    assert scores[1] > 0.98


numbers = st.floats(width=32)
SCENE = seen(box())


@settings(deadline=None)
@given(st.lists(numbers, min_size=4, max_size=4), st.lists(numbers, min_size=3, max_size=3))
def test_any_box_gets_a_score_between_zero_and_one(rectangle, center):
    odd = replace(box(), box_2d_px=torch.tensor([rectangle]), center_cam=torch.tensor([center]))
    score = consistency(replace(SCENE, detection3d=odd), CAMERA).item()
    assert 0.0 <= score <= 1.0
