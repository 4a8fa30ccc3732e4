"""Cameras that are not there: images and calibrations of several, each at its own rate.

python -m tag_perception.ros.streams SECONDS HxW NAME=HZ …: publish after printing `playing`,
print `sent` with the numbers as JSON, and stay until a signal
"""

from __future__ import annotations

import heapq
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from tag_perception.core.structures import Camera
from tag_perception.ros import process
from tag_perception.ros.inputs import below
from tag_perception.ros.messages import to_camera_info
from tag_perception.ros.wire import ImageMessage, publish, restamp

MATCHING_S = 30.0
SETTLING_S = 1.0
"""For the other side to have matched as well."""


class Stream:
    """One camera. Its messages are serialised once; a frame only gets a new stamp."""

    def __init__(self, ros: Node, name: str, size: tuple[int, int]) -> None:
        height, width = size
        header = Header(frame_id='_'.join(filter(None, (name, 'optical_frame'))))
        pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
        camera = Camera(width, height, fx=width, fy=width, u0=width / 2, v0=height / 2)
        info = serialize_message(to_camera_info(camera, header))
        self.sent = 0
        self._publishers: tuple[Publisher, ...] = (
            ros.create_publisher(CameraInfo, below(name, 'camera_info'), 1),
            ros.create_publisher(Image, below(name, 'image'), 1),
        )
        self._messages = (
            np.frombuffer(bytearray(info), np.uint8),
            ImageMessage('bgr8', np.uint8, 3).fill(header, pixels).memory,
        )

    def matched(self) -> bool:
        """Whether somebody subscribes to both topics."""
        return all(publisher.get_subscription_count() for publisher in self._publishers)

    def send(self) -> None:
        """One frame, stamped now, and its calibration before it."""
        stamp = divmod(time.time_ns(), 10**9)
        for publisher, message in zip(self._publishers, self._messages, strict=True):
            restamp(message, *stamp)
            publish(publisher, message)
        self.sent += 1


def play(
    streams: Mapping[str, Stream], rates_hz: Mapping[str, float], seconds: float,
    wait: Callable[[float], bool],
) -> None:  # fmt: skip
    """Send the frames of all streams when they are due; those due together follow at once.

    `wait` sleeps, and returns True to end the play. A frame that is late is sent late.
    """
    begin_s = time.monotonic()
    due = [(0.0, name, 0) for name in streams]
    while due:
        at_s, name, number = heapq.heappop(due)
        if at_s >= seconds or wait(max(0.0, begin_s + at_s - time.monotonic())):
            continue
        streams[name].send()
        heapq.heappush(due, ((number + 1) / rates_hz[name], name, number + 1))


def main(arguments: Sequence[str]) -> int:
    """Publish as told, then wait for a signal."""
    seconds, size, *pairs = arguments
    height, width = map(int, size.split('x'))
    rates_hz = {name: float(hz) for name, _, hz in (pair.partition('=') for pair in pairs)}

    def work(stop: process.Stop) -> int:
        from tag_perception.ros import session, transport

        with session.client('streams') as ros:
            streams = {name: Stream(ros, name, (height, width)) for name in rates_hz}
            transport.populate(height * width * len(streams))
            deadline_s = time.monotonic() + MATCHING_S
            while not all(stream.matched() for stream in streams.values()):
                if stop.wait(0.1) or time.monotonic() > deadline_s:
                    print(f'nobody subscribes after {MATCHING_S:g} s', flush=True)
                    return 2
            stop.wait(SETTLING_S)
            print('playing', flush=True)
            play(streams, rates_hz, float(seconds), stop.wait)
            sent = {name: stream.sent for name, stream in streams.items()}
            print('sent', json.dumps(sent), flush=True)
            while not stop.wait(60.0):
                pass
        return 0

    return process.run(work, leave=True)


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
