"""Streets agree with themselves: pixels, depths, boxes, calibration and motion tell one story."""

from functools import lru_cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tag_perception.core import geometry
from tag_perception.core.labels import ID_TO_TRAIN_ID, SEMANTIC_CLASSES
from tag_perception.data.street import render_frame
from tag_perception.data.street.view import EGO_VEHICLE, SKY, camera_T_world

SIZE = (128, 256)
STILL = (7, 8, 9, 10, 11, 12, 13, 17, 19, 20)
"""Label ids of things that never move and do not turn towards the camera."""


@lru_cache(maxsize=64)
def frame(index, step=0, seed=0):
    return render_frame(seed, index, SIZE, step=step)


def points_in_world(rendering):
    """(H, W, 3) where every pixel's ray ends; NaN in the sky and on the bonnet."""
    camera, depth = rendering.world.rig.camera, rendering.picture.depth.double()
    v, u = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in SIZE), indexing='ij')
    k = torch.tensor([camera.fx, camera.fy, camera.u0, camera.v0], dtype=torch.float64)
    optical = geometry.unproject(torch.stack((u, v), -1), depth, k)
    point_cam = geometry.optical_to_camera(optical).numpy()
    transform = camera_T_world(rendering.world)
    return (point_cam - transform[:3, 3]) @ transform[:3, :3]


def test_a_frame_does_not_depend_on_what_was_rendered_before_or_on_threads():
    first = render_frame(3, 5, SIZE)
    render_frame(3, 6, SIZE)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2 if threads == 1 else 1)
        again = render_frame(3, 5, SIZE)
    finally:
        torch.set_num_threads(threads)
    for name in ('image', 'label', 'thing', 'coverage'):
        assert torch.equal(getattr(first.picture, name), getattr(again.picture, name)), name
    assert torch.equal(first.picture.depth.nan_to_num(-1), again.picture.depth.nan_to_num(-1))


def test_seeds_frames_and_splits_give_different_streets():
    pictures = [
        render_frame(seed, index, SIZE, split).picture.label
        for seed, index, split in (
            (0, 0, 'train'),
            (1, 0, 'train'),
            (0, 1, 'train'),
            (0, 0, 'val'),
        )
    ]
    for i, one in enumerate(pictures):
        for other in pictures[i + 1 :]:
            assert (one != other).float().mean() > 0.1


@pytest.mark.parametrize('index', range(6))
def test_vehicle_pixels_lie_inside_their_boxes(index):
    rendering = frame(index)
    note, points = rendering.annotation, points_in_world(rendering)
    for i, instance in enumerate(note.instance_id):
        inside = note.instance == instance
        local = (points[inside] - note.center_world[i]) @ note.rotation_world[i]
        assert np.all(np.abs(local) < note.size_lwh_m[i] / 2 + 1e-3), note.model[i]


@pytest.mark.parametrize('index', range(6))
def test_rectangles_and_ids_are_those_of_the_pixels(index):
    rendering = frame(index)
    note, label = rendering.annotation, rendering.picture.label.numpy()
    assert len(set(note.instance_id.tolist())) == len(note.instance_id)
    for i, instance in enumerate(note.instance_id):
        rows, columns = np.nonzero(note.instance == instance)
        x1, y1, x2, y2 = note.modal_px[i]
        edges = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert (x1, y1, x2, y2) == edges
        assert (label[rows, columns] == note.label_id[i]).all()
        assert instance // 1000 == note.label_id[i]
        low, high = note.amodal_px[i, :2], note.amodal_px[i, 2:]
        assert (note.modal_px[i, :2] >= low - 1.5).all()
        assert (note.modal_px[i, 2:] <= high + 1.5).all()
    stuff = note.instance < 1000
    assert np.array_equal(note.instance[stuff], label[stuff])


def test_occlusion_and_truncation_are_shares_of_what_would_be_seen():
    notes = [frame(index).annotation for index in range(6)]
    occlusion = np.concatenate([note.occlusion for note in notes])
    truncation = np.concatenate([note.truncation for note in notes])
    assert ((occlusion >= 0) & (occlusion < 1)).all()
    assert ((truncation >= 0) & (truncation < 1)).all()
    assert (occlusion == 0).any()
    assert (occlusion > 0.3).any()
    width, height = SIZE[1], SIZE[0]
    for note in notes:
        x1, y1, x2, y2 = note.amodal_px.T
        inner = (x1 > 0) & (y1 > 0) & (x2 < width - 1) & (y2 < height - 1)
        assert np.allclose(note.truncation[inner], 0, atol=1e-9)
        assert (note.truncation[~inner] > 0).all()


def test_every_vehicle_in_sight_has_a_box_or_lies_in_an_ignore_region():
    for index in range(6):
        rendering = frame(index)
        note = rendering.annotation
        claimed = np.isin(note.instance, note.instance_id)
        for x1, y1, x2, y2 in note.ignore_px:
            claimed[y1:y2, x1:x2] = True
        vehicle = np.isin(rendering.picture.label.numpy(), (26, 27, 28, 31, 32, 33))
        assert claimed[vehicle].all()


def test_the_road_before_the_vehicle_lies_where_calibration_says():
    """The ground under the wheels is z = 0 of V; slopes change it little within a few metres."""
    checked = 0
    for index in range(12):
        rendering = frame(index)
        to_vehicle = np.linalg.inv(rendering.world.world_T_vehicle)
        points = points_in_world(rendering) @ to_vehicle[:3, :3].T + to_vehicle[:3, 3]
        road = rendering.picture.label.numpy() == 7
        near = road & (points[..., 0] < 9) & (np.abs(points[..., 1]) < 1.2)
        if near.sum() > 50:
            checked += 1
            assert np.abs(points[near][:, 2]).max() < 0.06
    assert checked >= 6


@pytest.mark.parametrize('index', range(4))
def test_what_stands_still_stands_still_in_a_sequence(index):
    """Points seen now, moved with the ego vehicle, lie at the depths rendered half a second on."""
    now, later = frame(index), frame(index, step=8)
    transform, camera = camera_T_world(later.world), later.world.rig.camera
    points = points_in_world(now)[np.isin(now.picture.label.numpy(), STILL)]
    x, y, z = np.moveaxis(points @ transform[:3, :3].T + transform[:3, 3], -1, 0)
    with np.errstate(divide='ignore', invalid='ignore'):
        u = np.rint(-y / x * camera.fx + camera.u0)
        v = np.rint(-z / x * camera.fy + camera.v0)
    seen = (x > 1) & (u >= 0) & (v >= 0) & (u < SIZE[1]) & (v < SIZE[0])
    u, v = u[seen].astype(int), v[seen].astype(int)
    still = np.isin(later.picture.label.numpy()[v, u], STILL)  # not hidden by what moves
    error = np.abs(later.picture.depth.numpy()[v, u] / x[seen] - 1)[still]
    assert np.median(error) < 0.01
    assert (error < 0.05).mean() > 0.8


def test_odometry_is_the_motion_between_frames():
    moving = next(index for index in range(20) if frame(index).world.speed > 3)
    poses = [frame(moving, step=step).world.world_T_vehicle for step in (0, 1)]
    world = frame(moving).world
    travelled = np.linalg.norm(poses[1][:3, 3] - poses[0][:3, 3]) * 17
    assert travelled == pytest.approx(world.speed, rel=0.02)
    heading = [np.arctan2(pose[1, 0], pose[0, 0]) for pose in poses]
    assert (heading[1] - heading[0]) * 17 == pytest.approx(world.yaw_rate, abs=0.02)


def test_vehicles_have_true_pitch_and_roll():
    tilts = []
    for index in range(12):
        note = frame(index).annotation
        _, pitch, roll = geometry.euler_from_rotation(torch.from_numpy(note.rotation_world))
        tilts.append(torch.stack((pitch, roll), 1))
    tilt = torch.cat(tilts).abs()
    assert tilt.max() < 0.25
    assert (tilt > 0.01).float().mean(0).min() > 0.05
    frames = [frame(index).annotation.rotation_world for index in range(12)]
    for rotation in frames:
        eye = rotation @ rotation.transpose(0, 2, 1)
        np.testing.assert_allclose(eye, np.broadcast_to(np.eye(3), eye.shape), atol=1e-9)


def test_all_classes_occur_in_forty_frames():
    count, present = np.zeros(256, int), np.zeros(256, int)
    for index in range(40):
        labels = render_frame(11, index, (64, 128)).picture.label.numpy()
        pixels = np.bincount(ID_TO_TRAIN_ID[labels].ravel(), minlength=256)
        count, present = count + pixels, present + (pixels > 5)
    missing = [SEMANTIC_CLASSES[i] for i in range(19) if present[i] < 4]
    assert not missing
    assert count[255] < 0.15 * count.sum()


def test_sky_and_bonnet_have_no_depth_and_all_else_has():
    for index in range(6):
        picture = frame(index).picture
        nothing = (picture.label == SKY) | (picture.label == EGO_VEHICLE)
        assert torch.equal(picture.depth.isnan(), nothing)
        assert picture.depth[~nothing].min() > 0.5


def test_boxes_in_c_are_those_in_the_world():
    rendering = frame(2)
    note, sample = rendering.annotation, rendering.sample
    boxes, transform = sample.detection3d, camera_T_world(rendering.world)
    expected = note.center_world @ transform[:3, :3].T + transform[:3, 3]
    np.testing.assert_allclose(boxes.center_cam.numpy(), expected, atol=1e-4)
    corners = geometry.box_corners(
        boxes.center_cam.double(),
        boxes.size_lwh_m.double(),
        geometry.rotation_from_quaternion(boxes.rotation_cam.double()),
    )
    k = torch.tensor([sample.camera.fx, sample.camera.fy, sample.camera.u0, sample.camera.v0])
    amodal = geometry.amodal_boxes(corners, k, SIZE[1], SIZE[0])
    np.testing.assert_allclose(amodal.numpy(), note.amodal_px, atol=0.05)


@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 2**40), index=st.integers(0, 10**9), height=st.integers(32, 90),
    width=st.integers(64, 200), split=st.sampled_from(('train', 'val')), step=st.integers(-19, 60),
)  # fmt: skip
def test_any_seed_and_size_renders(seed, index, height, width, split, step):
    sample = render_frame(seed, index, (height, width), split, step).sample
    assert sample.image.shape == (height, width, 3)
    assert sample.image.std() > 3
    assert (sample.semantic == 0).any()
    assert torch.isfinite(sample.detection3d.center_cam).all()
    assert (sample.detection3d.center_cam[:, 0] > 0).all()
