"""Hostile images and calibrations sent over DDS into the node, which accounts for all."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from tag_perception.ros.messages import BYTES_PER_PIXEL, PIXELS

from ..fuzz.cases import cases
from ..fuzz.mutations import damaged
from .fakes import make_image, make_info
from .rig import Rig


@pytest.fixture(scope='module')
def rig(ros):
    rig = Rig('raw')
    yield rig
    rig.close()


@pytest.fixture(scope='module')
def compressed_rig(ros):
    rig = Rig('compressed')
    yield rig
    rig.close()


SIDES = st.integers(0, 40) | st.sampled_from([2**15, 2**16, 2**31 - 1, 2**31, 2**32 - 1])
TEXT = st.text(st.characters(min_codepoint=1, exclude_categories=['Cs']), max_size=12)


@st.composite
def images(draw) -> Image:
    """An image of any encoding, then up to three fields that lie."""
    encoding = draw(st.sampled_from(list(BYTES_PER_PIXEL)))
    height, width = draw(st.integers(1, 24)), draw(st.integers(1, 24))
    rows = np.zeros((height, width, BYTES_PER_PIXEL[encoding]), np.uint8)
    rows += draw(st.integers(0, 60))
    image = make_image(encoding, pixels=rows, padding=draw(st.integers(0, 5)))
    if draw(st.booleans()):
        return image
    lies = {
        'height': SIDES,
        'width': SIDES,
        'step': SIDES,
        'is_bigendian': st.integers(0, 255),
        'encoding': TEXT | st.sampled_from([*BYTES_PER_PIXEL, '32FC1', '16UC1', '8UC3', 'RGB8']),
    }
    for field in draw(st.lists(st.sampled_from(sorted(lies)), max_size=2)):
        setattr(image, field, draw(lies[field]))
    change = draw(st.integers(-60, 60))
    if change < 0:
        del image.data[change:]
    else:
        image.data.frombytes(bytes(change))
    image.header.frame_id = draw(TEXT)
    image.header.stamp.sec = draw(st.integers(-(2**31), 2**31 - 1))
    image.header.stamp.nanosec = draw(st.integers(0, 2**32 - 1))
    return image


NUMBERS = st.floats() | st.sampled_from([0.0, 1.0, -1.0, 1e-300, 1e300, -1e300, 1e9, 20.0])
MODELS = ['', 'plumb_bob', 'rational_polynomial', 'equidistant', 'fisheye', 'thin_prism']


@st.composite
def infos(draw, size: tuple[int, int]) -> CameraInfo:
    """A calibration with lies; half of them at least of the image's size."""
    info = make_info(draw(st.sampled_from([size, size, (0, 0), (2**32 - 1, 2**32 - 1)])))
    for name, count in (('k', 9), ('r', 9), ('p', 12)):
        if draw(st.booleans()):
            values = np.array(getattr(info, name))
            for _ in range(draw(st.integers(1, 3))):
                values[draw(st.integers(0, count - 1))] = draw(NUMBERS)
            setattr(info, name, values)
    if draw(st.booleans()):
        info.distortion_model = draw(st.sampled_from(MODELS))
        info.d = draw(st.lists(NUMBERS | st.floats(-1, 1), max_size=14))
    info.roi.width, info.roi.height = draw(SIDES), draw(SIDES)
    info.binning_x = draw(SIDES)
    return info


@cases(300)
@given(image=images())
def test_images(rig, image):
    fate = rig.send(image)
    sound = (
        image.encoding in PIXELS
        and image.height * image.width > 0
        and image.step >= image.width * BYTES_PER_PIXEL[image.encoding]
        and len(image.data) >= image.step * image.height
    )
    if sound:
        assert fate == 'processed', rig.node.channels[0].input._rejection
    elif image.encoding in PIXELS or image.encoding not in BYTES_PER_PIXEL:
        assert fate == 'rejected'


@cases(300)
@given(data=st.data())
def test_calibrations(rig, data):
    """Whatever a calibration claims, the image is processed; only its boxes may be withheld."""
    size = data.draw(st.integers(1, 24)), data.draw(st.integers(1, 24))
    rig.send_info(data.draw(infos(size)))
    assert rig.send(make_image(size=size)) == 'processed', rig.node.channels[0].input._rejection


@cases(40)
@given(burst=st.lists(images() | st.none(), min_size=2, max_size=12))
def test_bursts(rig, burst):
    """Faster than they are processed, some of them bad: every frame that arrives has one end."""
    before = rig.counts
    for image in burst:
        if image is None:
            rig.spin(0.002)
        else:
            rig.images.publish(image)
            rig.executor.spin_once(timeout_sec=0.0)
    rig.spin(0.02)
    rig.until(lambda: rig.counts.under_way == 0)
    after = rig.counts
    assert after.received - before.received <= len(burst)
    assert after.received == after.processed + after.superseded + after.rejected
    rig.sent = after.received  # best effort: what DDS dropped never reached the node
    assert rig.send(make_image()) == 'processed'


def encoded(kind: str) -> bytes:
    import cv2

    noise = np.random.default_rng(3).integers(0, 60, (24, 32, 3), np.uint8)
    return cv2.imencode(f'.{kind}', noise)[1].tobytes()


@cases(250)
@given(data=st.data(), kind=st.sampled_from(['png', 'jpeg']), text=TEXT)
def test_compressed_images(compressed_rig, data, kind, text):
    message = CompressedImage(format=data.draw(st.sampled_from([kind, 'bgr8; png', text])))
    message.data.frombytes(data.draw(damaged(encoded(kind), hot=64)))
    compressed_rig.send(message)
    good = CompressedImage(format=kind)
    good.data.frombytes(encoded(kind))
    assert compressed_rig.send(good) == 'processed'


@cases(100)
@given(data=st.data())
def test_bytes_that_are_no_message(rig, data):
    """Publishers of other makers can put anything on the wire; the next frame is processed."""
    before = rig.counts.received
    content = data.draw(damaged(serialize_message(make_image()), hot=32))
    if len(content) >= 4:  # less than a CDR header is refused by the publisher already
        rig.images.publish(content)
    rig.spin(0.002)
    rig.until(lambda: rig.counts.under_way == 0)
    rig.sent += rig.counts.received - before
    rig.executor.spin_once(timeout_sec=0.0)
