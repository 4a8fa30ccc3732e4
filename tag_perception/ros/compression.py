"""Camera images as they come, raw or compressed (JPEG, PNG): one check, one decoder."""

from __future__ import annotations

import io
from typing import TypeAlias

import numpy as np
from PIL import Image as Pillow
from sensor_msgs.msg import CompressedImage, Image

from tag_perception.ros import messages
from tag_perception.ros.jpeg import JpegDecoder, OnCpu
from tag_perception.ros.wire import Rejected, WireImage

CameraImage: TypeAlias = Image | WireImage | CompressedImage

MAX_PIXELS = 2**26
"""67 megapixels: a few bytes may claim a picture that fills the memory; this ends before that."""

ENDS = {'JPEG': b'\xff\xd9', 'PNG': b'IEND'}
"""What stands in the last bytes of a file that was not cut off."""
TAIL_BYTES = 1024

ON_CPU = OnCpu()


def check_image(message: CameraImage) -> None:
    """Raise Rejected if `message` cannot be an image. Reads the header of compressed data only."""
    if not isinstance(message, CompressedImage):
        messages.check_image(message)
        return
    if not len(message.data):
        raise Rejected('compressed image is empty')
    kind = message.format or 'of unknown format'
    try:
        with Pillow.open(io.BytesIO(message.data), formats=tuple(ENDS)) as header:
            (width, height), kind = header.size, header.format or ''
    except Pillow.DecompressionBombError as error:
        raise Rejected(f'compressed image claims more than {MAX_PIXELS} pixels') from error
    except Exception as error:  # hostile bytes make Pillow raise nearly anything
        raise Rejected(
            f'compressed image {kind!r} of {len(message.data)} bytes is neither JPEG nor PNG'
        ) from error
    if width * height > MAX_PIXELS:
        raise Rejected(f'compressed image claims more than {MAX_PIXELS} pixels')
    if ENDS[kind] not in bytes(message.data[-TAIL_BYTES:]):
        raise Rejected(f'compressed image is cut off: {len(message.data)} bytes of a {kind}')
    if 'bayer' in message.format:
        raise Rejected(f'compressed image {message.format!r} is a Bayer pattern; send it raw')


def to_rgb(message: CameraImage, decode: JpegDecoder = ON_CPU) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a checked image, a view where possible. Raises Rejected."""
    if not isinstance(message, CompressedImage):
        return messages.to_rgb(message)
    pixels = decode(np.frombuffer(message.data, np.uint8))
    if pixels is None:
        raise Rejected(f'compressed image {message.format!r} is damaged')
    # image_transport names the order in which it handed the channels to OpenCV.
    return pixels[..., ::-1] if 'compressed rgb' in message.format else pixels
