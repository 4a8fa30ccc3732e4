"""One camera as the node sees it: its subscriptions, its mailbox, and what is wrong with it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from tag_perception.config import InputError
from tag_perception.ros import doctor
from tag_perception.ros.compression import CameraImage, check_image
from tag_perception.ros.mailbox import Mailbox
from tag_perception.ros.receiver import Receiver
from tag_perception.ros.stages import Stages
from tag_perception.ros.storage import type_name
from tag_perception.ros.wire import Rejected, read_image

State = Literal['inactive', 'waiting_image', 'waiting_camera_info', 'ok', 'stale', 'rejected']

WARNING_PERIOD_S = 5.0
"""Between two warnings of the same kind in the log."""
FOREIGN_NS = 600 * 10**9
"""Stamps this far from the system clock were not made with it."""


@dataclass(frozen=True)
class Arrival:
    """A frame in the mailbox."""

    image: CameraImage
    stages: Stages
    """With `transport`; what comes now is waiting in the mailbox."""


def reason(error: Exception) -> str:
    """What to tell about an error: its text, and its kind unless it speaks for itself."""
    known = isinstance(error, (InputError, Rejected))
    return str(error) if known else f'{type(error).__name__}: {error}'


def below(camera: str, topic: str) -> str:
    """The topic of one of several cameras: front/image; the plain name where there is but one."""
    return f'{camera}/{topic}' if camera else topic


class RateLimit:
    """Lets frames through so that their mean rate stays below a limit."""

    def __init__(self) -> None:
        self._due_s = 0.0

    def admits(self, now_s: float, max_rate_hz: float) -> bool:
        """Whether a frame that comes now may pass; 0 Hz stands for no limit."""
        if max_rate_hz <= 0:
            return True
        if now_s < self._due_s:
            return False
        # A frame that is late by less than a period does not delay the ones after it.
        period_s = 1 / max_rate_hz
        since_s = self._due_s if now_s - self._due_s < period_s else now_s
        self._due_s = since_s + period_s
        return True


class CameraInput:
    """Subscribes to `image` and `camera_info` while the node is active.

    The camera `front` of several has `front/image` and `front/camera_info`.
    """

    def __init__(
        self, node: Node, name: str = '', changed: threading.Condition | None = None
    ) -> None:
        """`changed`: shared by the mailboxes of all cameras."""
        self.mailbox: Mailbox[Arrival] = Mailbox(changed)
        self.info: CameraInfo | None = None
        """The newest one. It belongs to the frame if its size is that of the image."""
        self.withheld: str | None = None
        """Why the last frame went out without detections, or None."""
        self.max_rate_hz = 0.0
        """Frames that come faster are superseded; 0: none."""
        self.image_topic = node.resolve_topic_name(below(name, 'image'))
        self.info_topic = node.resolve_topic_name(below(name, 'camera_info'))
        self._node, self._name = node, name
        self._subscriptions: dict[str, Any] = {}
        self._receiver: Receiver | None = None
        self._last_image_s: float | None = None
        self._rejection: str | None = None
        self._foreign_stamps = False
        self._limit = RateLimit()

    def open(self, transport: Literal['raw', 'compressed'] = 'raw') -> None:
        """Subscribe. Best effort and depth 1, so that the newest frame is the only one waiting."""
        self._last_image_s = self._rejection = self.withheld = None
        self.image_topic = self._node.resolve_topic_name(below(self._name, 'image'))
        self._receiver = Receiver(self._node)
        self._subscribe('camera_info', CameraInfo, self.info_topic, self._on_info)
        if transport == 'raw':
            self._subscribe('image', Image, self.image_topic, self._on_serialised, raw=True)
        else:
            self.image_topic += '/compressed'
            self._subscribe('image', CompressedImage, self.image_topic, self._on_compressed)
        self._receiver.start()

    def _subscribe(self, name: str, kind: type, topic: str, callback: Any, **options: Any) -> None:
        assert self._receiver is not None
        self._subscriptions[name] = self._receiver.subscribe(
            kind,
            topic,
            callback,
            qos_profile=QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT),
            event_callbacks=SubscriptionEventCallbacks(
                incompatible_qos=lambda event: self._on_incompatible_qos(name)
            ),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            **options,
        )

    def close(self) -> None:
        """Unsubscribe: an inactive node costs nothing."""
        if self._receiver is not None:
            self._receiver.destroy()
        self._receiver = None
        self._subscriptions.clear()

    def reject(self, error: Exception) -> None:
        """Remember and log why a frame could not be used."""
        self._rejection = reason(error)
        self._node.get_logger().warning(
            f'{self.image_topic}: frame rejected: {self._rejection}',
            throttle_duration_sec=WARNING_PERIOD_S,
        )

    def accept(self, withheld: str | None) -> None:
        """Remember that a frame was processed, with detections or without."""
        self._rejection, self.withheld = None, withheld

    def state(self, stale_after_s: float) -> tuple[State, str]:
        """The state and a sentence about it that names the topic."""
        rejection, withheld = self._rejection, self.withheld  # of a moment: frames go on
        if not self._subscriptions:
            return 'inactive', 'the node is not active'
        if self._last_image_s is None:
            return 'waiting_image', f'no image on {self.image_topic} yet; {self._why("image")}'
        age_s = time.monotonic() - self._last_image_s
        if age_s > stale_after_s:
            why = self._why('image')
            return 'stale', f'no image on {self.image_topic} for {age_s:.1f} s; {why}'
        if rejection is not None:
            return 'rejected', f'{self.image_topic}: {rejection}'
        if self.info is None:
            why = self._why('camera_info')
            return 'waiting_camera_info', f'no message on {self.info_topic}: no detections; {why}'
        if withheld is not None:
            return 'waiting_camera_info', f'{self.info_topic}: {withheld}: no detections'
        if self._foreign_stamps:
            return 'ok', f'stamps on {self.image_topic} are of another clock: set use_sim_time?'
        return 'ok', f'images on {self.image_topic}'

    def _why(self, name: str) -> str:
        """What is known about the silence of a subscription."""
        subscription = self._subscriptions[name]
        kind = type_name(subscription.msg_type)
        topic, qos = subscription.topic_name, subscription.qos_profile
        ours = doctor.Subscribed(topic, kind, qos, name, self._name)
        return doctor.explain_silence(self._node, ours)

    def _on_incompatible_qos(self, name: str) -> None:
        if name in self._subscriptions:
            topic = self._subscriptions[name].topic_name
            self._node.get_logger().warning(f'{topic}: nothing arrives: {self._why(name)}')

    def _on_info(self, message: CameraInfo, published_ns: int) -> None:
        self.info = message

    def _on_serialised(self, message: memoryview, published_ns: int) -> None:
        self._on_image(partial(read_image, message), published_ns)

    def _on_compressed(self, message: CompressedImage, published_ns: int) -> None:
        self._on_image(lambda: message, published_ns)

    def _on_image(self, read: Callable[[], CameraImage], published_ns: int) -> None:
        now_ns = time.time_ns()
        self._last_image_s = time.monotonic()
        try:
            message = read()
            check_image(message)
        except Rejected as error:
            self.mailbox.reject()
            self.reject(error)
            return
        if not self._limit.admits(self._last_image_s, self.max_rate_hz):
            self.mailbox.skip()
            return
        stages = Stages(self._sent_ns(message, published_ns))
        stages.end('transport', now_ns)
        self.mailbox.put(Arrival(message, stages))

    def _sent_ns(self, message: CameraImage, published_ns: int) -> int:
        """The image's stamp or, if that is of another clock, when the image was published."""
        stamp = message.header.stamp
        stamp_ns = stamp.sec * 10**9 + stamp.nanosec
        simulated = self._node.get_parameter('use_sim_time').value
        self._foreign_stamps = not simulated and abs(published_ns - stamp_ns) > FOREIGN_NS
        return published_ns if simulated or self._foreign_stamps else stamp_ns
