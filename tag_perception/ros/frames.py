"""Poses between TF frames at the stamp of an image, for the parameter `target_frame`.

With tf2_ros (a ROS installation) moving frames work as well; without it /tf_static suffices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Transform
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.time import Time as ClockTime
from tf2_msgs.msg import TFMessage

from tag_perception.core.geometry import rotation_from_quaternion

try:
    import tf2_ros
except ImportError:  # a machine without a ROS installation
    tf2_ros = None

STATIC_QOS = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class NoTransform(LookupError):
    """There is no pose between two frames at that time; the message says what is missing."""


class Transforms(Protocol):
    """Where poses come from."""

    def lookup(self, target: str, source: str, stamp: Time) -> np.ndarray:
        """(4, 4) target_T_source. Raises NoTransform."""


class StaticTransforms:
    """The tree that /tf_static has told so far."""

    def __init__(self) -> None:
        self._parents: dict[str, tuple[str, np.ndarray]] = {}

    def add(self, message: TFMessage) -> None:
        """Remember poses; a newer one of the same frame replaces the older."""
        for pose in message.transforms:
            matrix = to_matrix(pose.transform)
            if np.isfinite(matrix).all():
                child, parent = _bare(pose.child_frame_id), _bare(pose.header.frame_id)
                # Replaced, not changed: other threads look up meanwhile.
                self._parents = {**self._parents, child: (parent, matrix)}

    def lookup(self, target: str, source: str, stamp: Time) -> np.ndarray:
        """(4, 4) target_T_source. Raises NoTransform."""
        target, source = _bare(target), _bare(source)
        from_target, from_source = self._ancestors(target), self._ancestors(source)
        common = next((frame for frame in from_source if frame in from_target), None)
        if common is None:
            known = ', '.join(sorted({*self._parents, *(p for p, _ in self._parents.values())}))
            raise NoTransform(
                f'no transform {target} ← {source} on /tf_static; frames there: {known or "none"}'
            )
        return np.linalg.inv(from_target[common]) @ from_source[common]

    def _ancestors(self, frame: str) -> dict[str, np.ndarray]:
        """Every frame above `frame`, nearest first, with ancestor_T_frame."""
        matrix, found = np.eye(4), {frame: np.eye(4)}
        while frame in self._parents:
            frame, step = self._parents[frame]
            if frame in found:  # a loop: somebody publishes nonsense
                break
            matrix = step @ matrix
            found[frame] = matrix
        return found


class TfBuffer:
    """The TF tree of tf2_ros, with frames that move. One for the life of a node.

    tf2_ros' own buffer adds a service to the node and never takes it away.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._buffer = tf2_ros.Buffer(node=node)
        self._listener: Any = None

    def open(self) -> None:
        """Subscribe."""
        self._listener = tf2_ros.TransformListener(self._buffer, self._node)

    def lookup(self, target: str, source: str, stamp: Time) -> np.ndarray:
        """(4, 4) target_T_source at `stamp`. Raises NoTransform."""
        try:
            found = self._buffer.lookup_transform(target, source, ClockTime.from_msg(stamp))
        except tf2_ros.TransformException as error:
            text = ' '.join(str(error).split())
            raise NoTransform(f'no transform {target} ← {source}: {text}') from error
        return to_matrix(found.transform)

    def close(self) -> None:
        """Unsubscribe, and forget what moves."""
        self._listener.unregister()
        self._buffer.clear()


class TfInput:
    """Listens to TF while the node is active."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._buffer = None if tf2_ros is None else TfBuffer(node)
        self._source: Transforms = StaticTransforms()
        self._close: Callable[[], object] = lambda: None

    def open(self) -> None:
        """Subscribe. What is static is sent again to every new subscriber."""
        if self._buffer is not None:
            self._buffer.open()
            self._source, self._close = self._buffer, self._buffer.close
            return
        static = StaticTransforms()
        subscription = self._node.create_subscription(
            TFMessage, '/tf_static', static.add, STATIC_QOS
        )
        self._source = static
        self._close = lambda: self._node.destroy_subscription(subscription)

    def close(self) -> None:
        """Unsubscribe."""
        self._close()
        self._close = lambda: None

    def lookup(self, target: str, source: str, stamp: Time) -> np.ndarray:
        """(4, 4) target_T_source at `stamp`. Raises NoTransform."""
        return self._source.lookup(target, source, stamp)


class Lookups:
    """What one camera asks of TF; counts what that could not tell."""

    def __init__(self, transforms: Transforms) -> None:
        self.misses = 0
        """Lookups that failed so far."""
        self.missed: str | None = None
        """Why the last lookup failed, or None."""
        self._transforms = transforms

    def lookup(self, target: str, source: str, stamp: Time) -> np.ndarray:
        """(4, 4) target_T_source at `stamp`. Raises NoTransform."""
        try:
            found = self._transforms.lookup(target, source, stamp)
        except NoTransform as error:
            self.misses += 1
            self.missed = str(error)
            raise
        self.missed = None
        return found


def to_matrix(transform: Transform) -> np.ndarray:
    """(4, 4) of a Transform message; a quaternion that is not normalised is."""
    turn, shift = transform.rotation, transform.translation
    wxyz = torch.tensor([turn.w, turn.x, turn.y, turn.z], dtype=torch.float64)
    matrix = np.eye(4)
    matrix[:3, :3] = rotation_from_quaternion(wxyz / wxyz.norm()).numpy()
    matrix[:3, 3] = shift.x, shift.y, shift.z
    return matrix


def _bare(frame: str) -> str:
    return frame.removeprefix('/')
