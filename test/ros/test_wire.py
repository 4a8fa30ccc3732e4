from __future__ import annotations

import struct
from types import SimpleNamespace
from unittest.mock import Mock, patch

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, Pose, Quaternion, Vector3
from hypothesis import given
from hypothesis import strategies as st
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from vision_msgs.msg import (
    BoundingBox2D,
    BoundingBox3D,
    Detection2D,
    Detection2DArray,
    Detection3D,
    Detection3DArray,
    LabelInfo,
    ObjectHypothesisWithPose,
    Point2D,
    Pose2D,
    VisionClass,
)

from tag_perception.ros import wire
from tag_perception.ros.wire import ImageMessage, Rejected, StampedMessage, read_image

from ..fuzz.cases import cases
from ..fuzz.mutations import damaged
from .fakes import make_image

TEXT = st.text(st.characters(min_codepoint=1, exclude_categories=['Cs']), max_size=12)
HEADERS = st.builds(
    Header,
    stamp=st.builds(Time, sec=st.integers(-(2**31), 2**31 - 1), nanosec=st.integers(0, 2**32 - 1)),
    frame_id=TEXT,
)


@st.composite
def images(draw) -> Image:
    """Fields that need not fit each other."""
    sizes = st.integers(0, 2**32 - 1)
    image = Image(
        header=draw(HEADERS), height=draw(sizes), width=draw(sizes), encoding=draw(TEXT),
        is_bigendian=draw(st.integers(0, 255)), step=draw(sizes),
    )  # fmt: skip
    image.data.frombytes(draw(st.binary(max_size=40)))
    return image


def fields(image) -> tuple:
    return (
        image.header, image.height, image.width, image.encoding, image.is_bigendian, image.step,
        bytes(image.data),
    )  # fmt: skip


def big_endian(image: Image) -> bytes:
    """What a machine of the other byte order sends."""
    message = bytearray(b'\0\0\0\0')

    def numbers(*values: int) -> None:
        message.extend(bytes(-len(message) % 4) + struct.pack(f'>{len(values)}I', *values))

    def text(value: str) -> None:
        numbers(len(value.encode()) + 1)
        message.extend(value.encode() + b'\0')

    numbers(image.header.stamp.sec % 2**32, image.header.stamp.nanosec)
    text(image.header.frame_id)
    numbers(image.height, image.width)
    text(image.encoding)
    message.append(image.is_bigendian)
    numbers(image.step, len(image.data))
    return bytes(message + image.data.tobytes())


@given(image=images())
def test_an_image_is_read_as_rclpy_reads_it(image):
    message = serialize_message(image)
    assert fields(read_image(message)) == fields(image)
    assert fields(read_image(memoryview(message))) == fields(image)


@given(image=images())
def test_the_other_byte_order(image):
    message = big_endian(image)
    assert fields(deserialize_message(message, Image)) == fields(image)
    assert fields(read_image(message)) == fields(image)


def test_the_pixels_are_a_view_of_the_message():
    message = serialize_message(make_image())
    data = np.frombuffer(read_image(message).data, np.uint8)
    assert np.shares_memory(data, np.frombuffer(message, np.uint8))


@cases(500)
@given(image=images(), data=st.data())
def test_damaged_messages_are_rejected_or_read_as_rclpy_reads_them(image, data):
    message = data.draw(damaged(serialize_message(image), hot=64))
    try:
        ours = read_image(message)
    except Rejected:
        return
    try:
        theirs = deserialize_message(message, Image)
    except Exception:
        return  # ours reads no more than the message holds, so it may be laxer
    assert fields(ours) == fields(theirs)


@pytest.mark.parametrize(
    ('message', 'said'),
    [
        (b'', '0 bytes that are no message'),
        (b'\0\3\0\0' + bytes(60), '64 bytes that are no message in plain CDR'),
        (serialize_message(make_image())[:11], 'cut off: 11 bytes'),
        (serialize_message(make_image())[:-1], 'data needs'),
        (b'\0\1\0\0' + bytes(8) + b'\xff' * 60, 'cut off: 72 bytes'),
    ],
)
def test_what_is_no_image_is_rejected_with_the_reason(message, said):
    with pytest.raises(Rejected, match=said):
        read_image(message)


SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 9))
KINDS = st.sampled_from([('mono8', np.uint8, 1), ('32FC1', np.float32, 1), ('rgb8', np.uint8, 3)])


@given(kind=KINDS, frames=st.lists(st.tuples(HEADERS, SHAPES), min_size=1, max_size=4))
def test_rclpy_reads_what_is_written_in_place(kind, frames):
    encoding, dtype, channels = kind
    buffer = ImageMessage(*kind)
    for number, (header, (height, width)) in enumerate(frames):
        pixels = np.arange(height * width * channels).reshape(height, width, channels) + number
        pixels = pixels.astype(dtype)
        if channels == 1:
            pixels = pixels[..., 0]
        before = buffer.memory
        assert buffer.fill(header, pixels[::-1, ::-1]) is buffer
        assert (buffer.memory is before) == (len(buffer.memory) == len(before))
        image = deserialize_message(buffer.memory.tobytes(), Image)
        assert (image.header, image.encoding, image.is_bigendian) == (header, encoding, 0)
        assert (image.height, image.width) == (height, width)
        assert image.step == width * channels * np.dtype(dtype).itemsize
        np.testing.assert_array_equal(
            np.frombuffer(image.data, dtype).reshape(pixels.shape), pixels[::-1, ::-1]
        )


@given(kind=KINDS, header=HEADERS, shape=SHAPES)
def test_pixels_that_are_in_their_place_are_not_copied(kind, header, shape):
    buffer = ImageMessage(*kind)
    place = buffer.place(header, *shape)
    assert place.ctypes.data % 64 == 0
    place[...] = np.arange(place.size).reshape(place.shape)
    pixels = place[..., 0] if place.shape[2] == 1 else place
    # Not in numpy itself, which other threads of this process use as well.
    without = SimpleNamespace(**{**vars(np), 'copyto': Mock(side_effect=AssertionError)})
    with patch.object(wire, 'np', without):
        buffer.fill(header, pixels)
    other = ImageMessage(*kind).fill(header, pixels.copy())
    assert buffer.memory.tobytes() == other.memory.tobytes()


NUMBERS = st.floats(width=64, allow_nan=False)
HYPOTHESIS = 1 + 7 + 36
SIZES = {Detection2DArray: HYPOTHESIS + 5, Detection3DArray: HYPOTHESIS + 10}
"""Numbers of a detection."""


def from_numbers(kind: type, header: Header, class_id: str, numbers: list[float]) -> object:
    """One detection, field by field."""
    result = ObjectHypothesisWithPose()
    result.hypothesis.class_id, result.hypothesis.score = class_id, numbers[0]
    result.pose.pose = pose(numbers[1:8])
    result.pose.covariance = np.array(numbers[8:HYPOTHESIS])
    box = numbers[HYPOTHESIS:]
    if kind is Detection3DArray:
        size = Vector3(x=box[7], y=box[8], z=box[9])
        bbox = BoundingBox3D(center=pose(box[:7]), size=size)
        return Detection3D(header=header, results=[result], bbox=bbox)
    center = Pose2D(position=Point2D(x=box[0], y=box[1]), theta=box[2])
    bbox = BoundingBox2D(center=center, size_x=box[3], size_y=box[4])
    return Detection2D(header=header, results=[result], bbox=bbox)


def pose(numbers: list[float]) -> Pose:
    x, y, z, *turn = numbers
    orientation = Quaternion(**dict(zip('xyzw', turn, strict=True)))
    return Pose(position=Point(x=x, y=y, z=z), orientation=orientation)


@pytest.mark.parametrize('kind', SIZES)
@given(header=HEADERS, class_ids=st.lists(TEXT, max_size=4), data=st.data())
def test_rclpy_reads_detections_that_were_put_together(kind, header, class_ids, data):
    size = SIZES[kind]
    numbers = st.lists(NUMBERS, min_size=size, max_size=size)
    rows = [data.draw(numbers) for _ in class_ids]
    message = wire.detections(kind, header, class_ids, np.reshape(rows, (-1, size)))
    assert message.kind is kind
    got = deserialize_message(message.memory.tobytes(), kind)
    expected = kind(header=header)
    expected.detections = [
        from_numbers(kind, header, *parts) for parts in zip(class_ids, rows, strict=True)
    ]
    assert got == expected
    assert len(message.memory) == len(serialize_message(expected))


@given(headers=st.lists(HEADERS, min_size=1, max_size=4))
def test_a_message_that_stays_the_same_gets_each_header(headers):
    content = LabelInfo(class_map=[VisionClass(class_id=3, class_name='wall')], threshold=0.5)
    message = StampedMessage(LabelInfo(class_map=content.class_map, threshold=0.5))
    for header in headers:
        assert message.fill(header) is message
        content.header = header
        assert deserialize_message(message.memory.tobytes(), message.kind) == content


def test_pixels_of_another_type_or_number_of_channels_are_refused():
    with pytest.raises(TypeError, match='mono8 is uint8, not float32'):
        ImageMessage('mono8', np.uint8, 1).fill(Header(), np.zeros((2, 2), np.float32))
    with pytest.raises(ValueError, match='reshape'):
        ImageMessage('rgb8', np.uint8, 3).fill(Header(), np.zeros((2, 2, 4), np.uint8))


def refuse(*_: object) -> int:
    return 1


every_way = pytest.mark.parametrize('way', ['rcl', 'without rcl', 'rcl refuses'])


def choose(way, monkeypatch):
    """In which way messages go out and come in."""
    assert wire._rcl is not None
    if way == 'without rcl':
        monkeypatch.setattr(wire, '_rcl', None)
    elif way == 'rcl refuses':
        monkeypatch.setattr(wire._rcl, 'publish', refuse)
        monkeypatch.setattr(wire._rcl, 'take', refuse)


@every_way
def test_a_subscriber_gets_what_was_in_the_memory(client, spin_until, monkeypatch, way):
    choose(way, monkeypatch)
    received: list[Image] = []
    client.create_subscription(Image, 'wire', received.append, 5)
    publisher = client.create_publisher(Image, 'wire', 5)
    spin_until(lambda: publisher.get_subscription_count() > 0, client)
    buffer = ImageMessage('32FC1', np.float32, 1)
    for number in range(3):
        pixels = np.full((4, 5), number, np.float32)
        wire.publish(publisher, buffer.fill(Header(frame_id=f'eye{number}'), pixels).memory)
    spin_until(lambda: len(received) == 3, client)
    assert [image.header.frame_id for image in received] == ['eye0', 'eye1', 'eye2']
    assert [set(np.frombuffer(m.data, np.float32)) for m in received] == [{0.0}, {1.0}, {2.0}]
