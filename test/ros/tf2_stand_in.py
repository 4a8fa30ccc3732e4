"""The part of tf2_ros that the node uses, for machines without it: the same names and calls."""

from __future__ import annotations

import numpy as np
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.time import Time
from tf2_msgs.msg import TFMessage


class TransformException(Exception):
    """Raised by `Buffer.lookup_transform`."""


class Buffer:
    """One step between two frames, which may turn or not; positions are interpolated in time."""

    def __init__(self, cache_time: Duration | None = None, node: Node | None = None) -> None:
        if node is not None:
            from std_srvs.srv import Trigger

            self.srv = node.create_service(Trigger, 'tf2_frames', lambda q, answer: answer)
        self._steps: dict[tuple[str, str], list] = {}

    def set_transform(self, transform, authority: str) -> None:
        names = transform.header.frame_id, transform.child_frame_id
        self._steps.setdefault(names, []).append(transform)

    def clear(self) -> None:
        self._steps.clear()

    def lookup_transform(
        self, target_frame: str, source_frame: str, time: Time, timeout: Duration | None = None
    ):
        steps = self._steps.get((target_frame, source_frame))
        if steps is None:
            raise TransformException(f'"{target_frame}" does not exist\nby name')
        stamps = [Time.from_msg(step.header.stamp).nanoseconds for step in steps]
        if not stamps[0] <= time.nanoseconds <= stamps[-1]:
            raise TransformException('Lookup would require extrapolation\ninto the future')
        found = steps[int(np.searchsorted(stamps, time.nanoseconds))]
        for axis in 'xyz':
            values = [getattr(step.transform.translation, axis) for step in steps]
            setattr(found.transform.translation, axis, np.interp(time.nanoseconds, stamps, values))
        return found


class TransformListener:
    """Fills a buffer from /tf and /tf_static."""

    def __init__(self, buffer: Buffer, node: Node) -> None:
        self.buffer, self.node = buffer, node
        latched = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._subscriptions = [
            node.create_subscription(TFMessage, '/tf', self._add, 100),
            node.create_subscription(TFMessage, '/tf_static', self._add, latched),
        ]

    def unregister(self) -> None:
        for subscription in self._subscriptions:
            self.node.destroy_subscription(subscription)

    def _add(self, message: TFMessage) -> None:
        for transform in message.transforms:
            self.buffer.set_transform(transform, 'default_authority')
