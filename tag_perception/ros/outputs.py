"""The topics the node publishes, and their publishers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from nav_msgs.msg import OccupancyGrid
from rclpy.event_handler import PublisherEventCallbacks
from rclpy.lifecycle import LifecycleNode, LifecyclePublisher
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from vision_msgs.msg import Detection2DArray, Detection3DArray, LabelInfo, VisionInfo
from visualization_msgs.msg import MarkerArray

from tag_perception.ros import doctor, wire
from tag_perception.ros.inputs import below
from tag_perception.ros.wire import WireMessage


@dataclass(frozen=True)
class Output:
    """One topic below the node's name."""

    topic: str
    type: type
    latched: bool = False
    """Transient local: a late subscriber gets the last message."""
    lazy: bool = False
    """Made only while somebody subscribes."""

    def qos(self) -> QoSProfile:
        """Reliable, so that every subscriber matches; RViz asks for no less."""
        if self.latched:
            return QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        return QoSProfile(depth=5)


OUTPUTS = (
    Output('detections', Detection3DArray),
    Output('detections_2d', Detection2DArray),
    Output('label_info', LabelInfo, latched=True),
    Output('semantic/image', Image),
    Output('semantic/camera_info', CameraInfo),
    Output('semantic/label_info', LabelInfo, latched=True),
    Output('depth/image', Image),
    Output('depth/camera_info', CameraInfo),
    Output('overlay', Image, lazy=True),
    Output('semantic/color', Image, lazy=True),
    Output('depth/color', Image, lazy=True),
    Output('markers', MarkerArray, lazy=True),
    Output('consistency', Detection3DArray, lazy=True),
    Output('points', PointCloud2, lazy=True),
    Output('obstacles', OccupancyGrid, lazy=True),
    Output('latency', DiagnosticArray),
    Output('vision_info', VisionInfo, latched=True),
)
"""Every topic the node publishes, in the order in which a frame's messages go out, but for
depth/image, which goes out beside the others."""
LAST = 'vision_info'
"""Who has it knows that the frame is complete."""

LATCHED = frozenset(output.topic for output in OUTPUTS if output.latched)


class Publishers:
    """One publisher per output; silent unless the node is active.

    The camera `front` of several has `~/front/detections` and so on.
    """

    def __init__(self, node: LifecycleNode, camera: str = '') -> None:
        self._node, self._camera = node, camera
        self._publishers: dict[str, LifecyclePublisher] = {}
        self._refused: set[str] = set()
        """Topics that somebody wanted otherwise than they are offered; perhaps no more."""
        self._second = ThreadPoolExecutor(1, 'publish')

    def open(self) -> None:
        """Create them all."""
        for output in OUTPUTS:
            self._publishers[output.topic] = self._node.create_lifecycle_publisher(
                output.type,
                f'~/{below(self._camera, output.topic)}',
                output.qos(),
                qos_overriding_options=QoSOverridingOptions.with_default_policies(),
                event_callbacks=self._callbacks(output.topic),
            )

    def close(self) -> None:
        """Take the topics off the graph."""
        while self._publishers:
            self._node.destroy_lifecycle_publisher(self._publishers.popitem()[1])

    def problems(self) -> list[str]:
        """What keeps subscribers from getting anything, with the remedy."""
        suspected = [topic for topic in self._publishers if topic in self._refused]
        return [problem for topic in suspected for problem in self._problems(topic)]

    def _problems(self, topic: str) -> list[str]:
        publisher = self._publishers[topic]
        return doctor.explain_subscribers(self._node, publisher.topic_name, publisher.qos_profile)

    def _callbacks(self, topic: str) -> PublisherEventCallbacks:
        return PublisherEventCallbacks(incompatible_qos=lambda event: self._warn(topic))

    def _warn(self, topic: str) -> None:
        self._refused.add(topic)
        for problem in self._problems(topic) if topic in self._publishers else ():
            self._node.get_logger().warning(problem)

    def wanted(self, topic: str) -> bool:
        """Whether somebody subscribes to `topic`."""
        return self._publishers[topic].get_subscription_count() > 0

    def publish(self, topic: str, message: Any) -> None:
        """Send; the message may be changed as soon as this returns."""
        publisher = self._publishers[topic]
        if not isinstance(message, WireMessage):
            publisher.publish(message)
        elif publisher.is_activated:
            wire.publish(publisher, message.memory)

    @contextmanager
    def beside(self, work: Callable[[], None]) -> Iterator[None]:
        """Do `work` in a second thread while the `with` block runs, and wait for it."""
        done = self._second.submit(work)
        try:
            yield
        finally:
            done.result()
