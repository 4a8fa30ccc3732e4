from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip('rclpy')

from sensor_msgs.msg import CompressedImage

from tag_perception.ros.compression import check_image, to_rgb
from tag_perception.ros.wire import Rejected

from .fakes import make_image

PIXELS = cv2.GaussianBlur(
    np.random.default_rng(3).integers(0, 255, (24, 32, 3), np.uint8), (0, 0), 1.5
)


def compressed(suffix: str, pixels: np.ndarray = PIXELS, form: str | None = None):
    """What a camera driver sends of RGB `pixels`."""
    bgr = pixels[..., ::-1] if pixels.ndim == 3 else pixels
    return message(cv2.imencode(suffix, bgr)[1].tobytes(), form or suffix[1:])


def message(data: bytes, form: str) -> CompressedImage:
    result = CompressedImage(format=form)
    result.data.frombytes(data)
    return result


def test_png_equals_raw():
    raw, png = make_image('rgb8', pixels=PIXELS), compressed('.png')
    for image in (raw, png):
        check_image(image)
    np.testing.assert_array_equal(to_rgb(png), to_rgb(raw))


def test_jpeg_is_near_and_in_the_same_channel_order():
    flat = np.zeros((16, 16, 3), np.uint8)
    flat[...] = (200, 90, 20)
    image = to_rgb(compressed('.jpg', flat))
    assert np.abs(image.astype(int) - flat).max() <= 4


@pytest.mark.parametrize('form', ['rgb8; png compressed bgr8', 'bgr8; png compressed bgr8', 'png'])
def test_formats_of_image_transport(form):
    np.testing.assert_array_equal(to_rgb(compressed('.png', form=form)), PIXELS)


def test_channels_that_were_not_swapped_are_not_swapped_back():
    data = cv2.imencode('.png', PIXELS)[1].tobytes()  # RGB handed over as if it were BGR
    image = to_rgb(message(data, 'rgb8; png compressed rgb8'))
    np.testing.assert_array_equal(image, PIXELS)


def test_gray_and_16_bit_become_rgb():
    gray = to_rgb(compressed('.png', PIXELS[..., 0]))
    np.testing.assert_array_equal(gray, np.repeat(PIXELS[..., :1], 3, 2))
    deep = to_rgb(compressed('.png', PIXELS.astype(np.uint16) * 256))
    np.testing.assert_array_equal(deep, PIXELS)


def test_orientation_in_exif_is_ignored():
    plain = compressed('.jpg')
    exif = b'Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0'
    data = bytes(plain.data)
    turned = data[:2] + b'\xff\xe1' + struct.pack('>H', len(exif) + 2) + exif + data[2:]
    assert to_rgb(message(turned, 'jpeg')).shape == PIXELS.shape


def claiming(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it is width × height."""
    header = b'IHDR' + struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack('>I', 13) + header + struct.pack('>I', zlib.crc32(header))
    return b'\x89PNG\r\n\x1a\n' + chunk + b'\0\0\0\0IEND\xaeB`\x82'


@pytest.mark.parametrize(
    ('image', 'text'),
    [
        (message(b'', 'jpeg'), 'is empty'),
        (message(b'no picture', 'jpeg'), "'jpeg' of 10 bytes is neither JPEG nor PNG"),
        (message(claiming(60000, 60000), 'png'), 'claims more than 67108864 pixels'),
        (message(claiming(8200, 8200), 'png'), 'claims more than 67108864 pixels'),
        (message(bytes(compressed('.jpg').data[:-40]), 'jpeg'), 'is cut off'),
        (message(bytes(compressed('.png').data[:-40]), 'png'), 'is cut off'),
        (compressed('.png', form='bayer_rggb8; png compressed bayer_rggb8'), 'Bayer'),
        (compressed('.tiff'), 'neither JPEG nor PNG'),
    ],
)
def test_what_cannot_be_read_is_rejected_on_arrival(image, text):
    with pytest.raises(Rejected, match=text):
        check_image(image)


def test_damage_in_the_middle_is_rejected_by_the_decoder():
    data = bytearray(compressed('.png').data)
    data[len(data) // 2] ^= 255
    damaged = message(bytes(data), 'png')
    check_image(damaged)
    with pytest.raises(Rejected, match='damaged'):
        to_rgb(damaged)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_bytes_break_it_and_a_damaged_png_is_never_a_picture_of_something_else(data):
    good = bytearray(compressed(data.draw(st.sampled_from(['.png', '.jpg']))).data)
    png = good.startswith(b'\x89')
    for _ in range(data.draw(st.integers(0, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    image = message(bytes(good[: data.draw(st.integers(1, len(good)))]), '')
    try:
        check_image(image)
        pixels = to_rgb(image)
    except Rejected:
        return
    assert pixels.dtype == np.uint8
    assert pixels.shape[2] == 3
    if png:
        np.testing.assert_array_equal(pixels, PIXELS)
