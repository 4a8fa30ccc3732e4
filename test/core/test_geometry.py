"""Geometry against the golden vector of a real car, the official tools and its own inverses."""

import math

import numpy as np
import pytest
import torch
from cityscapesscripts.helpers.box3dImageTransform import CRS_S, Box3dImageTransform
from cityscapesscripts.helpers.box3dImageTransform import Camera as OfficialCamera
from hypothesis import given, settings
from hypothesis import strategies as st
from pyquaternion import Quaternion

from tag_perception.core import geometry

SENSOR_T = [
    [0.9990881051503779, -0.01948468779721943, -0.03799085532693703, -1.6501524664770573],
    [0.019498764210995674, 0.9998098810245096, 0.0, -0.1331288872611436],
    [0.03798363254444427, -0.0007407747301939942, 0.9992780868764849, -1.2836173638418473],
]
INTRINSICS = torch.tensor([2262.52, 2265.3017905988554, 1096.98, 513.137], dtype=torch.float64)
CENTER_V = [33.95, 5.05, 0.57]
SIZE = [4.3, 1.72, 1.53]
Q_V = [0.9735839424380041, -0.010751769161021867, 0.0027191710555974913, 0.22805988817753894]

angles = st.floats(-math.pi, math.pi)
tilts = st.floats(-1.5, 1.5)


def tensor(values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def near(actual: torch.Tensor, expected, tolerance: float = 1e-4) -> bool:
    return torch.allclose(actual, tensor(expected), rtol=0, atol=tolerance)


@pytest.fixture
def golden():
    """The car of the golden vector, its centre and rotation brought from V to C."""
    transform = tensor(SENSOR_T)
    rotation_v = geometry.rotation_from_quaternion(tensor(Q_V))
    center_cam = transform[:, :3] @ tensor(CENTER_V) + transform[:, 3]
    return center_cam, transform[:, :3] @ rotation_v


def test_golden_centre(golden):
    center_cam, _ = golden
    optical = geometry.camera_to_optical(center_cam)
    assert near(center_cam, [32.14884, 5.57789, 0.57177], 1e-5)
    assert near(optical, [-5.57789, -0.57177, 32.14884], 1e-5)
    pixel = geometry.project(optical, INTRINSICS)
    assert near(pixel, [704.42779, 472.84808], 1e-5)
    assert near(geometry.unproject(pixel, optical[2], INTRINSICS), optical.tolist(), 1e-9)


def test_golden_angles(golden):
    center_cam, rotation = golden
    psi, theta, phi = geometry.euler_from_rotation(rotation)
    assert near(torch.stack((psi, theta, phi)), [0.4797143, -0.0235138, -0.0372331], 1e-6)
    u = geometry.project(geometry.camera_to_optical(center_cam), INTRINSICS)[0]
    alpha = geometry.alpha_from_psi(psi, u, INTRINSICS[0], INTRINSICS[2])
    assert near(alpha, -1.8787186, 1e-6)
    assert near(geometry.wrap_angle(-psi - math.pi / 2), -2.0505106, 1e-6)  # KITTI's ry
    assert near(geometry.psi_from_alpha(alpha, u, INTRINSICS[0], INTRINSICS[2]), psi.item(), 1e-9)
    in_v = geometry.euler_from_rotation(geometry.rotation_from_quaternion(tensor(Q_V)))
    assert near(torch.stack(in_v), [0.4600975, 0.0101990, -0.0196975], 1e-6)
    official = Quaternion(Q_V).yaw_pitch_roll  # of the scores: Rx Ry Rz, about the axes of V
    assert near(tensor(official), [0.4602023, 0.0003906, -0.0221776], 1e-6)


def test_golden_corners_and_amodal_box(golden):
    center_cam, rotation = golden
    corners = geometry.box_corners(center_cam, tensor(SIZE), rotation)
    pixels = geometry.project(geometry.camera_to_optical(corners), INTRINSICS)
    expected = {
        'BLB': (693.20, 533.99), 'BRB': (816.17, 528.73), 'FRB': (717.05, 520.36),
        'FLB': (605.66, 524.83), 'BLT': (689.84, 417.91), 'BRT': (813.13, 415.63),
        'FRT': (714.17, 419.78), 'FLT': (602.53, 421.89),
    }  # fmt: skip
    # The reference prints the corners with two digits, the box around them with three.
    assert near(pixels, [expected[name] for name in geometry.CORNER_NAMES], 0.0051)
    box = geometry.amodal_boxes(corners[None], INTRINSICS, 2048, 1024)[0]
    assert near(box, [602.530, 415.633, 816.173, 533.992], 5.1e-4)


def test_golden_optical_quaternions(golden):
    """Conventions A (object axes stay x front) and B (axes conjugated) of the ROS message."""
    _, rotation = golden
    k3 = tensor(geometry.OPTICAL_R_CAMERA.tolist())
    a = geometry.quaternion_from_rotation(k3 @ rotation)
    b = geometry.quaternion_from_rotation(k3 @ rotation @ k3.T)
    assert near(a, [0.36667, 0.36722, -0.61981, 0.58868], 1e-5)
    assert near(b, [0.97119, 0.01584, -0.23729, -0.01529], 1e-5)
    camera_to_optical = geometry.quaternion_from_rotation(k3)
    product = geometry.quaternion_multiply(
        camera_to_optical, geometry.quaternion_from_rotation(rotation)
    )
    assert near(product * product[0].sign(), a.tolist(), 1e-9)


def official_box(size, rotation_cam: torch.Tensor, center_cam) -> tuple[np.ndarray, list[float]]:
    """Corners in S and amodal box by the official tool; its V is our C (no extrinsics)."""
    fx, fy, u0, v0 = INTRINSICS.tolist()
    camera = OfficialCamera(fx, fy, u0, v0, sensor_T_ISO_8855=np.eye(4)[:3].tolist())
    transform = Box3dImageTransform(camera)
    quaternion = geometry.quaternion_from_rotation(rotation_cam)
    transform.initialize_box(size, Quaternion(quaternion.tolist()), center_cam)
    vertices = transform.get_vertices(CRS_S)
    return (
        np.array([vertices[name] for name in geometry.CORNER_NAMES]),
        transform.get_amodal_box_2d(),
    )


@settings(max_examples=60, deadline=None)
@given(
    center=st.tuples(st.floats(-6, 60), st.floats(-20, 20), st.floats(-3, 3)),
    size=st.tuples(st.floats(0.5, 15), st.floats(0.5, 3), st.floats(0.5, 4)),
    psi=angles,
    theta=st.floats(-0.3, 0.3),
    phi=st.floats(-0.3, 0.3),
)
def test_corners_and_amodal_boxes_agree_with_the_official_tool(center, size, psi, theta, phi):
    """Also beside, across and behind the image plane."""
    rotation = geometry.rotation_from_euler(tensor(psi), tensor(theta), tensor(phi))
    corners = geometry.box_corners(tensor(center), tensor(size), rotation)
    corners_official, box_official = official_box(size, rotation, center)
    np.testing.assert_allclose(geometry.camera_to_optical(corners), corners_official, atol=1e-9)
    box = geometry.amodal_boxes(corners[None], INTRINSICS, 2048, 1024)[0]
    np.testing.assert_allclose(box, box_official, atol=1e-6)


@given(psi=angles, theta=tilts, phi=angles)
def test_euler_quaternion_and_matrix_are_one_rotation(psi, theta, phi):
    euler = tensor([psi, theta, phi])
    rotation = geometry.rotation_from_euler(*euler)
    by_axes = (
        Quaternion(axis=(0, 0, 1), radians=psi)
        * Quaternion(axis=(0, 1, 0), radians=theta)
        * Quaternion(axis=(1, 0, 0), radians=phi)
    )
    np.testing.assert_allclose(rotation, by_axes.rotation_matrix, atol=1e-12)
    quaternion = geometry.quaternion_from_euler(*euler)
    assert near(geometry.rotation_from_quaternion(quaternion), rotation.tolist(), 1e-12)
    back = geometry.quaternion_from_rotation(rotation)
    assert back[0] >= 0
    assert near((back * quaternion).sum().abs(), 1, 1e-12)
    assert near(geometry.rotation_from_euler(*geometry.euler_from_rotation(rotation)),
                rotation.tolist(), 1e-6)  # fmt: skip


@pytest.mark.parametrize(
    'axis', [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (1, 1, 1)]
)
def test_quaternion_of_half_turns_is_stable(axis):
    """Where w = 0 the trace formula divides by zero; each axis takes another branch."""
    expected = Quaternion(axis=axis, radians=math.pi)
    quaternion = geometry.quaternion_from_rotation(tensor(expected.rotation_matrix.tolist()))
    assert near((quaternion * tensor(expected.elements.tolist())).sum().abs(), 1, 1e-9)


@given(angle=st.floats(-50, 50))
def test_wrap_angle_keeps_the_direction(angle):
    wrapped = geometry.wrap_angle(tensor(angle))
    assert -math.pi <= wrapped < math.pi
    assert near(torch.cos(wrapped), math.cos(angle), 1e-9)
    assert near(torch.sin(wrapped), math.sin(angle), 1e-9)


@given(psi=angles, u=st.floats(-5000, 5000))
def test_alpha_round_trip(psi, u):
    alpha = geometry.alpha_from_psi(tensor(psi), tensor(u), 2262.52, 1096.98)
    back = geometry.psi_from_alpha(alpha, tensor(u), 2262.52, 1096.98)
    assert near(torch.cos(back - psi), 1, 1e-12)


def test_alpha_is_what_the_camera_sees():
    """Cars turned along with their rays look alike: alpha is equal, yaw is not."""
    u = tensor([200.0, 1096.98, 1800.0])
    ray = torch.atan2(u - 1096.98, torch.full_like(u, 2262.52))
    # Turned along with the ray: to the right of the image means clockwise, psi falls.
    psi = 0.4 - ray
    alpha = geometry.alpha_from_psi(psi, u, 2262.52, 1096.98)
    assert near(alpha, [alpha[1].item()] * 3, 1e-12)


def test_functions_take_batches_and_keep_dtype():
    points = torch.randn(2, 5, 3).abs() + 1
    intrinsics = INTRINSICS.float().expand(2, 1, 4)
    pixels = geometry.project(points, intrinsics)
    assert pixels.shape == (2, 5, 2)
    assert pixels.dtype == torch.float32
    assert torch.allclose(
        geometry.unproject(pixels, points[..., 2], intrinsics), points, atol=1e-4
    )
    assert torch.equal(geometry.optical_to_camera(geometry.camera_to_optical(points)), points)
    rotation = geometry.rotation_from_euler(*torch.randn(3, 2, 5))
    assert geometry.box_corners(points, points, rotation).shape == (2, 5, 8, 3)
    assert geometry.quaternion_from_rotation(rotation).shape == (2, 5, 4)
