from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip('rclpy')

from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from tag_perception.core.structures import Scene
from tag_perception.ros import rectification
from tag_perception.ros.rectification import Rectifier

CARND = Path(__file__).parents[3] / 'shared' / 'data' / 'carnd_image'
SIZE = (480, 640)
K = np.array([[420.0, 0.0, 322.5], [0.0, 424.0, 238.0], [0.0, 0.0, 1.0]])
MODELS = {
    'plumb_bob': [-0.26, 0.044, -0.0007, 0.0013, -0.01],
    'rational_polynomial': [0.4, -0.05, 0.0005, -0.001, -0.004, 0.75, -0.04, -0.02],
    'equidistant': [-0.02, 0.004, -0.003, 0.0008],
}


def make_info(model: str = 'plumb_bob', d=None, p=None, r=None) -> CameraInfo:
    info = CameraInfo(height=SIZE[0], width=SIZE[1], distortion_model=model)
    info.d, info.k = MODELS[model] if d is None else d, K.ravel()
    info.r = np.eye(3).ravel() if r is None else r.ravel()
    if p is not None:
        info.p = np.column_stack((p, np.zeros(3))).ravel()
    return info


def distort(points: np.ndarray, model: str) -> np.ndarray:
    """Raw pixels of points (N, 3) in S, by the projection functions of OpenCV."""
    zero, d = np.zeros(3), np.array(MODELS[model])
    if model == 'equidistant':
        return cv2.fisheye.projectPoints(points[:, None], zero, zero, K, d)[0].reshape(-1, 2)
    return cv2.projectPoints(points, zero, zero, K, d)[0].reshape(-1, 2)


@pytest.mark.parametrize('model', MODELS)
def test_a_point_is_seen_where_the_pinhole_camera_of_the_result_sees_it(model):
    p = np.array([[400.0, 0.0, 310.0], [0.0, 400.0, 245.0], [0.0, 0.0, 1.0]])
    rectifier = Rectifier(make_info(model, p=p))
    points = np.array([[x, y, 4.0] for x in (-2.0, 0.1, 2.1) for y in (-1.4, 0.0, 1.3)])
    camera = rectifier.camera
    assert (camera.fx, camera.fy, camera.u0, camera.v0) == (400.0, 400.0, 310.0, 245.0)
    expected = points[:, :2] / 4.0 * 400.0 + (310.0, 245.0)
    v, u = np.mgrid[: SIZE[0], : SIZE[1]]
    for raw, wanted in zip(distort(points, model), expected, strict=True):
        blob = np.exp(-((u - raw[0]) ** 2 + (v - raw[1]) ** 2) / 18)
        image = np.repeat(np.rint(255 * blob).astype(np.uint8)[..., None], 3, 2)
        seen = rectifier(image)[..., 0].astype(float)
        found = (seen * u).sum() / seen.sum(), (seen * v).sum() / seen.sum()
        np.testing.assert_allclose(found, wanted, atol=0.35)


def test_rotation_and_missing_projection_follow_image_proc():
    angle = np.deg2rad(2)
    turn = cv2.Rodrigues(np.array([0.0, angle, 0.0]))[0]
    image = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), np.uint8)
    info = make_info(r=turn)
    expected_maps = cv2.initUndistortRectifyMap(
        K, np.array(MODELS['plumb_bob']), turn, K, SIZE[::-1], cv2.CV_32FC1
    )
    expected = cv2.remap(image, *expected_maps, cv2.INTER_LINEAR)
    difference = Rectifier(info)(image).astype(int) - expected
    assert np.abs(difference).mean() < 1.5
    assert Rectifier(info).camera.fx == K[0, 0]


def test_bgr_memory_is_rectified_like_rgb():
    image = np.random.default_rng(1).integers(0, 255, (*SIZE, 3), np.uint8)
    rectifier = Rectifier(make_info())
    view = np.ascontiguousarray(image[..., ::-1])[..., ::-1]
    np.testing.assert_array_equal(rectifier(view), rectifier(image))
    gray = np.broadcast_to(image[..., :1], image.shape)
    np.testing.assert_array_equal(rectifier(gray)[..., 2], rectifier(image)[..., 0])


def test_what_the_lens_did_not_see_has_no_class_and_no_depth():
    rectifier = Rectifier(make_info(d=[0.3, 0.1, 0.0, 0.0, 0.0]))  # pincushion: dark corners
    scene = Scene(torch.zeros(SIZE, dtype=torch.uint8), torch.ones(SIZE), None)
    black = rectifier(np.full((*SIZE, 3), 200, np.uint8))[..., 0] == 0
    assert black[0, 0]
    assert not black[240, 320]
    blanked = rectifier.blank(scene)
    assert (blanked.semantic.numpy()[black] == 255).all()
    assert np.isnan(blanked.depth.numpy()[black]).all()
    assert blanked.semantic[240, 320] == 0
    assert blanked.depth[240, 320] == 1
    whole = Rectifier(make_info())
    assert whole.blank(scene) is scene


def test_result_says_what_it_is():
    info = Rectifier(make_info()).camera_info(Header(frame_id='x'))
    assert not any(info.d)
    assert (info.width, info.height, info.header.frame_id) == (640, 480, 'x')
    np.testing.assert_array_equal(np.array(info.p).reshape(3, 4)[:, :3].ravel(), info.k)


@pytest.mark.parametrize(
    ('change', 'text'),
    [
        ({'distortion_model': 'double_sphere'}, "'double_sphere' is not one of plumb_bob"),
        ({'d': [0.1] * 8}, 'plumb_bob needs 4 or 5 coefficients, d has 8'),
        ({'d': [float('nan')] * 5}, 'not finite'),
        ({'k': np.zeros(9)}, 'focal length must be positive'),
    ],
)
def test_faults_name_the_field(change, text):
    info = make_info()
    for name, value in change.items():
        setattr(info, name, value)
    assert text in rectification.fault(info)


@settings(deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), max_size=14), st.sampled_from([*MODELS, 'x', '']))
def test_no_coefficients_break_a_rectifier(d, model):
    info = CameraInfo(height=8, width=8, distortion_model=model, d=d, k=K.ravel())
    if rectification.fault(info) is None:
        assert Rectifier(info)(np.zeros((8, 8, 3), np.uint8)).shape == (8, 8, 3)


def test_projection_counts_where_images_come_rectified():
    p = np.array([[400.0, 0.0, 310.0], [0.0, 401.0, 245.0], [0.0, 0.0, 1.0]])
    camera = rectification.rectified_camera(make_info(p=p))
    assert (camera.fx, camera.fy, camera.u0, camera.v0) == (400.0, 401.0, 310.0, 245.0)
    camera = rectification.rectified_camera(make_info())
    assert (camera.fx, camera.fy, camera.u0, camera.v0) == (420.0, 424.0, 322.5, 238.0)


@pytest.mark.skipif(not CARND.is_dir(), reason='shared/data/carnd_image is not here')
def test_a_real_lens_is_undone_as_opencv_does():
    values = json.loads((CARND / 'camera_info.json').read_text())
    info = CameraInfo(height=values['height'], width=values['width'], d=values['D'])
    info.distortion_model, info.k = values['distortion_model'], np.ravel(values['K'])
    image = cv2.imread(str(CARND / 'test1.jpg'))
    rectified = Rectifier(info)(image)
    assert rectified.shape == image.shape
    expected = cv2.undistort(image, np.array(values['K']), np.array(values['D']))
    assert np.abs(rectified.astype(int) - expected).mean() < 1.0
