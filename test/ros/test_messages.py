from __future__ import annotations

import contextlib
import re
import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from vision_msgs.msg import Detection3DArray, LabelInfo

from tag_perception.core.geometry import box_corners, camera_to_optical, rotation_from_quaternion
from tag_perception.core.structures import Camera
from tag_perception.ros import messages
from tag_perception.ros.messages import (
    BYTES_PER_PIXEL,
    check_image,
    to_camera,
    to_camera_info,
    to_detections,
    to_rgb,
    with_header,
)
from tag_perception.ros.wire import ImageMessage, Rejected

from .fakes import golden_boxes, make_image

RGB = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
DIRECT = {
    'rgb8': RGB,
    'bgr8': RGB[..., ::-1],
    'rgba8': np.dstack((RGB, np.full((6, 8), 7, np.uint8))),
    'bgra8': np.dstack((RGB[..., ::-1], np.full((6, 8), 7, np.uint8))),
    'mono8': RGB[..., :1],
}


@pytest.mark.parametrize('padding', [0, 5])
@pytest.mark.parametrize('encoding', DIRECT)
def test_direct_encodings_are_views_of_the_message(encoding, padding):
    message = make_image(encoding, pixels=DIRECT[encoding], padding=padding)
    check_image(message)
    rgb = to_rgb(message)
    expected = RGB if encoding != 'mono8' else np.repeat(RGB[..., :1], 3, 2)
    np.testing.assert_array_equal(rgb, expected)
    assert np.shares_memory(rgb, np.frombuffer(message.data, np.uint8))


def mosaic(rgb: np.ndarray, pattern: str) -> np.ndarray:
    """What a sensor with this Bayer pattern sees, e.g. rggb: row 0 is RG…, row 1 is GB…."""
    channels = np.array(['rgb'.index(letter) for letter in pattern]).reshape(2, 2)
    rows, columns = np.indices(rgb.shape[:2])
    return np.take_along_axis(rgb, channels[rows % 2, columns % 2][..., None], 2)[..., 0]


@pytest.mark.parametrize('padding', [0, 6])
@pytest.mark.parametrize('bits', [8, 16])
@pytest.mark.parametrize('pattern', ['rggb', 'bggr', 'gbrg', 'grbg'])
def test_bayer_patterns(pattern, bits, padding):
    flat = np.empty((8, 10, 3), np.uint8)
    flat[:] = 200, 100, 50  # a colour that tells the three channels apart
    raw = mosaic(flat, pattern)
    raw = raw if bits == 8 else raw.astype('<u2') * 257
    message = make_image(f'bayer_{pattern}{bits}', pixels=raw[..., None], padding=padding)
    check_image(message)
    np.testing.assert_array_equal(to_rgb(message), flat)


@pytest.mark.parametrize(
    ('encoding', 'order'), [('yuv422', [1, 0]), ('yuv422_yuy2', [0, 1])], ids=['uyvy', 'yuyv']
)
def test_yuv422(encoding, order):
    grey = np.full((4, 6, 1), 126, np.uint8)
    chroma = np.tile(np.array([90, 240], np.uint8), (4, 3))[..., None]  # U, V, U, V …
    pixels = np.concatenate((grey, chroma), 2)[..., order]
    message = make_image(encoding, pixels=pixels, padding=3)
    check_image(message)
    red, green, blue = to_rgb(message)[1, 1].astype(int)
    assert red > 250
    assert green < 90
    assert 40 < blue < 70


# The cv_bridge on PyPI misspells grbg8 and knows neither 16-bit patterns nor YUV.
@pytest.mark.parametrize('encoding', [*DIRECT, 'bayer_rggb8', 'bayer_bggr8', 'bayer_gbrg8'])
def test_our_conversion_agrees_with_cv_bridge(encoding):
    bridge = pytest.importorskip('cv_bridge').CvBridge()
    size = BYTES_PER_PIXEL[encoding]
    pixels = np.random.default_rng(1).integers(0, 256, (12, 16, size), np.uint8)
    message = make_image(encoding, pixels=pixels)
    np.testing.assert_array_equal(to_rgb(message), bridge.imgmsg_to_cv2(message, 'rgb8'))


def broken(**changes) -> Image:
    message = make_image('bgr8', size=(4, 6))
    for name, value in changes.items():
        setattr(message, name, value)
    return message


@pytest.mark.parametrize(
    ('message', 'said'),
    [
        (broken(encoding='nv21'), "encoding 'nv21' is not one of rgb8, bgr8"),
        (broken(encoding=''), "encoding ''"),
        (broken(step=17), 'step 17 is smaller than a row: 6 bgr8 pixels are 18 bytes'),
        (broken(height=5), 'data has 72 bytes, height × step = 5 × 18 needs 90'),
        (broken(height=0), 'image is empty: 6×0'),
        (broken(width=0), 'image is empty: 0×4'),
        (broken(encoding='bayer_rggb16', is_bigendian=1), 'byte order'),
    ],
)
def test_unusable_images_are_rejected_with_the_reason(message, said):
    with pytest.raises(Rejected, match=re.escape(said)):
        check_image(message)


@given(
    encoding=st.sampled_from((*BYTES_PER_PIXEL, 'mono16', 'jpeg')),
    height=st.integers(0, 9),
    width=st.integers(0, 9),
    step=st.integers(0, 40),
    length=st.integers(0, 400),
    big=st.booleans(),
)
def test_whatever_comes_is_read_or_rejected(encoding, height, width, step, length, big):
    message = Image(
        height=height, width=width, step=step, encoding=encoding, is_bigendian=int(big)
    )
    message.data.frombytes(bytes(range(256)) * 2)
    del message.data[length:]
    with contextlib.suppress(Rejected):
        check_image(message)
        rgb = to_rgb(message)
        assert rgb.shape == (height, width, 3)
        assert rgb.dtype == np.uint8
        rgb.sum()


def test_camera_info_round_trip_and_header():
    camera = Camera(640, 480, fx=500.0, fy=501.5, u0=320.25, v0=239.75)
    info = to_camera_info(camera, Header(frame_id='eye'))
    assert to_camera(info) == camera
    assert list(info.p) == [500.0, 0, 320.25, 0, 0, 501.5, 239.75, 0, 0, 0, 1, 0]
    assert not any(info.d)
    other = with_header(info, Header(frame_id='other'))
    assert (info.header.frame_id, other.header.frame_id) == ('eye', 'other')
    other.header.frame_id = 'eye'
    assert other == info


def detections(*what) -> Detection3DArray:
    """As a subscriber gets them."""
    return deserialize_message(to_detections(*what).memory.tobytes(), Detection3DArray)


def test_golden_box_in_convention_a():
    message = detections(Header(frame_id='s'), golden_boxes(), 'name')
    pose, size = message.detections[0].bbox.center, message.detections[0].bbox.size
    center = [pose.position.x, pose.position.y, pose.position.z]
    np.testing.assert_allclose(center, [-5.57789, -0.57177, 32.14884], atol=1e-5)
    quaternion = np.array([getattr(pose.orientation, axis) for axis in 'wxyz'])
    golden = np.array([-0.36667, -0.36722, 0.61981, -0.58868])
    np.testing.assert_allclose(quaternion * np.sign(quaternion @ golden), golden, atol=2e-5)
    np.testing.assert_allclose([size.x, size.y, size.z], [4.3, 1.72, 1.53], atol=1e-6)


def test_box_of_the_message_has_the_corners_of_the_box_in_the_camera_frame():
    boxes = golden_boxes()
    pose = detections(Header(), boxes, 'name').detections[0].bbox.center
    rotation = rotation_from_quaternion(
        torch.tensor([getattr(pose.orientation, axis) for axis in 'wxyz'])
    )
    center = torch.tensor([pose.position.x, pose.position.y, pose.position.z])
    corners = box_corners(center, boxes.size_lwh_m[0], rotation)
    expected = box_corners(
        boxes.center_cam[0], boxes.size_lwh_m[0], rotation_from_quaternion(boxes.rotation_cam[0])
    )
    np.testing.assert_allclose(corners, camera_to_optical(expected), atol=1e-5)


def test_detections_carry_header_class_score_and_the_covariance_along_the_ray():
    message = detections(Header(frame_id='s'), golden_boxes(), 'name')
    assert message.header.frame_id == 's'
    first, second = message.detections
    assert first.header == second.header == message.header
    assert [d.results[0].hypothesis.class_id for d in message.detections] == ['car', 'bus']
    assert first.results[0].hypothesis.score == pytest.approx(0.9)
    assert first.results[0].pose.pose == first.bbox.center
    covariance = np.array(first.results[0].pose.covariance).reshape(6, 6)
    ray = np.array([-5.57789, -0.57177, 32.14884])
    ray /= np.linalg.norm(ray)
    np.testing.assert_allclose(covariance[:3, :3], 4 * np.outer(ray, ray), atol=1e-4)
    assert not covariance[3:].any()
    assert not covariance[:, 3:].any()
    assert not np.any(second.results[0].pose.covariance)


def test_class_ids_as_numbers_are_those_of_the_mask():
    message = detections(Header(), golden_boxes(), 'id')
    ids = [d.results[0].hypothesis.class_id for d in message.detections]
    names = {
        str(entry.class_id): entry.class_name for entry in classes(messages.semantic_labels())
    }
    assert ids == ['13', '15']
    assert [names[i] for i in ids] == ['car', 'bus']
    labels = messages.detection_labels(0.25)
    assert labels.threshold == pytest.approx(0.25)
    assert {e.class_id: e.class_name for e in classes(labels)} == {
        13: 'car', 14: 'truck', 15: 'bus', 16: 'train', 17: 'motorcycle', 18: 'bicycle',
    }  # fmt: skip
    assert len(classes(messages.semantic_labels())) == 19


def classes(labels: LabelInfo) -> list:
    return list(labels.class_map)


def test_full_size_outputs_are_filled_in_three_milliseconds():
    mask = np.zeros((1024, 2048), np.uint8)
    depth = np.zeros((1024, 2048), np.float32)
    boxes = golden_boxes()[torch.zeros(50, dtype=torch.int64)]
    outputs = ImageMessage('mono8', np.uint8, 1), ImageMessage('32FC1', np.float32, 1)
    header, times_ms = Header(), []
    for _ in range(25):
        start = time.thread_time()  # what others do on this machine does not count
        outputs[0].fill(header, mask)
        outputs[1].fill(header, depth)
        to_detections(header, boxes, 'name')
        times_ms.append((time.thread_time() - start) * 1e3)
    assert min(times_ms) < 3.0, times_ms
