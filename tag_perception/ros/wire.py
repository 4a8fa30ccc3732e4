"""Messages as they lie on the wire: read without deserialising, written without serialising.

An image of 2048×1024 has 2 to 8 MB, and a copy of it costs a millisecond. rclpy copies it three
times between DDS and a message, and as often on the way back, and nothing else in Python can run
meanwhile; nor can it while rclpy walks through twenty detections, half a millisecond. What lies on
the wire is plain CDR: numbers, each aligned to its size, and texts and arrays behind their length.
"""

from __future__ import annotations

import ctypes
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from rclpy.publisher import Publisher
from rclpy.serialization import serialize_message
from rclpy.subscription import Subscription
from sensor_msgs.msg import Image
from std_msgs.msg import Header

ORDERS = {b'\x00\x00': '>', b'\x00\x01': '<'}
"""What the first two bytes of a message in plain CDR say of its byte order."""
ENCODING = b'\x00\x01\x00\x00' if sys.byteorder == 'little' else b'\x00\x00\x00\x00'
"""Plain CDR in the byte order of this machine."""

CACHE_LINE = 64
"""Bytes; what the CPU writes in one go."""
MESSAGE_INFO = 32
"""Numbers of eight bytes, more than rmw_message_info_t has; source_timestamp is the first."""


class Rejected(ValueError):
    """A frame that cannot be used; the message is the reason."""


@dataclass(frozen=True)
class WireImage:
    """The fields of a sensor_msgs/Image; `data` is a view of the serialised message."""

    header: Header
    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: memoryview


def read_image(message: bytes | memoryview) -> WireImage:
    """The image in a serialised message. Raises Rejected for bytes that are none."""
    order = ORDERS.get(bytes(message[:2]))
    if order is None:
        raise Rejected(f'{len(message)} bytes that are no message in plain CDR')
    try:
        sec, nanosec, length = struct.unpack_from(f'{order}iII', message, 4)
        frame_id, at = _read_text(message, 16, length)
        height, width, length = struct.unpack_from(f'{order}III', message, _aligned(at))
        encoding, at = _read_text(message, _aligned(at) + 12, length)
        is_bigendian = message[at]
        step, length = struct.unpack_from(f'{order}II', message, _aligned(at + 1))
    except (struct.error, IndexError) as error:
        raise Rejected(f'image message is cut off: {len(message)} bytes') from error
    begin = _aligned(at + 1) + 8
    if begin + length > len(message):
        raise Rejected(
            f'image message is cut off: {len(message)} bytes, data needs {begin + length}'
        )
    header = Header(stamp=Time(sec=sec, nanosec=nanosec), frame_id=frame_id)
    data = memoryview(message)[begin : begin + length]
    return WireImage(header, height, width, encoding, is_bigendian, step, data)


def _aligned(at: int) -> int:
    """Where the next number of four bytes begins; the four that come first do not disturb it."""
    return -(-at // 4) * 4


def _read_text(message: bytes | memoryview, at: int, length: int) -> tuple[str, int]:
    """A text of `length` bytes with its terminator, as rclpy reads it, and where it ends."""
    end = at + length
    if end > len(message):
        raise IndexError(end)
    return bytes(message[at:end]).partition(b'\0')[0].decode(errors='replace'), end


@dataclass
class WireMessage:
    """A serialised message."""

    kind: type
    """What it is, e.g. sensor_msgs.msg.Image."""
    memory: np.ndarray
    """(bytes,) uint8 in CDR; of one that can be filled, valid until the next `fill`."""


class StampedMessage(WireMessage):
    """A message that says the same in every frame, but for its header."""

    def __init__(self, message: Any) -> None:
        """`message` begins with a header."""
        super().__init__(type(message), np.empty(0, np.uint8))
        self._message, self._frame_id = message, None

    def fill(self, header: Header) -> StampedMessage:
        """This message under `header`."""
        if header.frame_id == self._frame_id:
            restamp(self.memory, header.stamp.sec, header.stamp.nanosec)
        else:
            self._message.header, self._frame_id = header, header.frame_id
            self.memory = np.frombuffer(bytearray(serialize_message(self._message)), np.uint8)
        return self


def restamp(memory: np.ndarray, sec: int, nanosec: int) -> None:
    """Put a new stamp into a serialised message that begins with a header.

    That comes after four bytes about the encoding, and first in it the stamp.
    """
    memory[4:12] = np.frombuffer(struct.pack('=iI', sec, nanosec), np.uint8)


def detections(
    kind: type, header: Header, class_ids: Sequence[str], values: np.ndarray
) -> WireMessage:
    """A Detection2DArray or Detection3DArray (`kind`) of detections with one hypothesis each.

    `values` (N, D) float64 has all numbers of a detection as they follow each other in the
    message, from the score to the size of the box; a detection's `id` is empty.
    """
    head = struct.pack('=iI', header.stamp.sec, header.stamp.nanosec) + _text(header.frame_id)
    head += b'\0' * (-len(head) % 4)
    parts = [ENCODING, head, struct.pack('=I', len(values))]
    at = len(head) + 4  # from behind ENCODING, from where CDR aligns
    rows = np.ascontiguousarray(values, np.float64)
    beginnings: dict[tuple[str, int], bytes] = {}
    for class_id, row in zip(class_ids, rows, strict=True):
        beginning = beginnings.get((class_id, at % 8))
        if beginning is None:
            beginning = b'\0' * (-at % 4) + head + struct.pack('=I', 1) + _text(class_id)
            beginning += b'\0' * (-(at + len(beginning)) % 8)
            beginnings[class_id, at % 8] = beginning
        parts += beginning, row.tobytes(), NO_ID
        at += len(beginning) + row.nbytes + len(NO_ID)
    return WireMessage(kind, np.frombuffer(b''.join(parts), np.uint8))


def _text(text: str) -> bytes:
    data = text.encode() + b'\0'
    return struct.pack('=I', len(data)) + data


NO_ID = _text('')


class ImageMessage(WireMessage):
    """One long-lived serialised Image; the pixels of a frame are copied into it once at most."""

    def __init__(self, encoding: str, dtype: type[np.generic], channels: int) -> None:
        super().__init__(Image, np.empty(0, np.uint8))
        big = sys.byteorder == 'big'
        self._image = Image(encoding=encoding, is_bigendian=big)  # without its pixels
        self._dtype, self._channels = np.dtype(dtype), channels

    def place(self, header: Header, height: int, width: int) -> np.ndarray:
        """Where `fill` puts the pixels of an image with this header and size: (H, W, channels).

        Pixels that are computed into it need no copy. What is there now is undefined.
        """
        image = self._image
        image.header, image.height, image.width = header, height, width
        image.step = width * self._channels * self._dtype.itemsize
        size = height * image.step
        before = serialize_message(image)[:-4] + size.to_bytes(4, sys.byteorder)
        if len(self.memory) != len(before) + size:
            self.memory = _empty(len(before), size)
        self.memory[: len(before)] = np.frombuffer(before, np.uint8)
        return self.memory[len(before) :].view(self._dtype).reshape(height, width, self._channels)

    def fill(self, header: Header, pixels: np.ndarray) -> ImageMessage:
        """This message with `header` and `pixels`, (H, W) or (H, W, channels)."""
        if pixels.dtype != self._dtype:
            raise TypeError(f'{self._image.encoding} is {self._dtype}, not {pixels.dtype}')
        place = self.place(header, *pixels.shape[:2])
        if pixels.ctypes.data != place.ctypes.data:
            source = np.ascontiguousarray(pixels).reshape(place.shape)
            np.copyto(place.view(np.uint8), source.view(np.uint8))  # bytes are copied fastest
        return self


def _empty(before: int, size: int) -> np.ndarray:
    """(before + size,) uint8 of which the last `size` begin where a cache line does."""
    memory = np.empty(before + size + CACHE_LINE, np.uint8)
    begin = -(memory.ctypes.data + before) % CACHE_LINE
    return memory[begin : begin + before + size]


class _Allocator(ctypes.Structure):
    """rcutils_allocator_t: four functions and their state."""

    _fields_ = (('pointers', ctypes.c_void_p * 5),)


class _SerializedMessage(ctypes.Structure):
    """rcl_serialized_message_t; a message that comes in is made larger by its allocator."""

    _fields_ = (
        ('buffer', ctypes.c_void_p),
        ('buffer_length', ctypes.c_size_t),
        ('buffer_capacity', ctypes.c_size_t),
        ('allocator', _Allocator),
    )


def publish(publisher: Publisher[Any], memory: np.ndarray) -> None:
    """Send the serialised message in `memory`, which may be changed as soon as this returns.

    Straight to rcl, without Python's lock: rclpy copies the message twice more and keeps the lock
    while DDS copies it. Where rcl does not take it so, rclpy gets it, and says what is wrong.
    """
    if _rcl is not None:
        message = _SerializedMessage(memory.ctypes.data, len(memory), len(memory))
        with publisher.handle:  # is not destroyed meanwhile
            pointer = publisher.handle.pointer
            if _rcl.publish(pointer, ctypes.byref(message), None) == 0:
                return
    publisher.publish(memory.tobytes())


def take(subscription: Subscription[Any]) -> tuple[Any, int] | None:
    """A message and when it was published, in ns; None where there is none.

    Of a `raw` subscription it is a memoryview, straight from rcl, without Python's lock; by rclpy
    where rcl does not give it so.
    """
    if _rcl is not None and subscription.raw:
        taken = _Taken(_rcl)
        received = (ctypes.c_int64 * MESSAGE_INFO)()
        with subscription.handle:  # is not destroyed meanwhile
            pointer = subscription.handle.pointer
            message = ctypes.byref(taken.message)
            if _rcl.take(pointer, message, ctypes.byref(received), None) == 0:
                return np.asarray(taken).data, received[0]
    with subscription.handle:
        found = subscription.handle.take_message(subscription.msg_type, subscription.raw)
    if found is None:
        return None
    message, info = found
    return memoryview(message) if subscription.raw else message, info['source_timestamp']


class _Taken:
    """The memory of a message that rcl has made, given back when nobody looks at it any more."""

    def __init__(self, rcl: _Rcl) -> None:
        self.message = _SerializedMessage(allocator=rcl.allocator)
        self._free = rcl.free

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return {
            'data': (self.message.buffer, False),
            'shape': (self.message.buffer_length,),
            'typestr': '|u1',
            'version': 3,
        }

    def __del__(self) -> None:
        self._free(ctypes.byref(self.message))


class _Rcl:
    """Functions of the libraries that rclpy has loaded. Raises where they are not to be had."""

    def __init__(self) -> None:
        rcl, rcutils = ctypes.CDLL('librcl.so'), ctypes.CDLL('librcutils.so')
        self.publish = rcl.rcl_publish_serialized_message
        self.publish.argtypes = (ctypes.c_void_p,) * 3
        self.take = rcl.rcl_take_serialized_message
        self.take.argtypes = (ctypes.c_void_p,) * 4
        self.free = rcutils.rcutils_uint8_array_fini
        self.free.argtypes = (ctypes.c_void_p,)
        allocator = rcutils.rcutils_get_default_allocator
        allocator.restype = _Allocator
        self.allocator = allocator()


def _find_rcl() -> _Rcl | None:
    try:
        return _Rcl()
    except (OSError, AttributeError):
        return None


_rcl = _find_rcl()
