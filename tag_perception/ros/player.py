"""play-bag: a bag's messages published as they were recorded, or one frame at a time.

Messages go out as the bytes that lie in the bag. In lockstep the next image waits for the results
of the last one, so that a machine slower than the camera loses no frame.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile
from rosgraph_msgs.msg import Clock
from tqdm import tqdm

from tag_perception.config import InputError
from tag_perception.ros.answers import Answers
from tag_perception.ros.process import Stop
from tag_perception.ros.storage import BagReader, message_class

log = logging.getLogger(__name__)

IMAGE = 'sensor_msgs/msg/Image'
CLOCK_PERIOD_S = 0.01
MATCHING_S = 10.0
"""How long to wait for somebody who wants images, without lockstep. With the stock settings of
Fast DDS, a subscriber that was there was found after up to 3.2 s."""
SETTLING_S = 0.3
"""We know of the subscriber; until it knows of us too, it would drop what we send."""
START_S = 120.0
"""How long lockstep waits for the node: loading and warming up takes its time."""
ANSWER_S = 60.0
"""How long lockstep waits for the results of one frame."""
FLUSHING_S = 0.3
"""What was just sent is lost with its publisher: the last messages get this time to arrive."""
ACKNOWLEDGING_S = 10.0
"""How long they get at most where a reliable subscriber has not acknowledged them."""
LATE_S = 1.0
"""How much later than the node's counts its results may arrive."""
RESENDS = 3
"""How often an image is sent again that the node never got."""


@dataclass(frozen=True)
class Playback:
    """How to play."""

    rate: float = 1.0
    """Speed relative to the recording."""
    loop: bool = False
    clock: bool = False
    """Publish /clock."""
    lockstep: str | None = None
    """Full name of the node whose results each image waits for."""
    images: str | None = None
    """The image topic that lockstep follows; needed only if the bag has several."""

    def __post_init__(self) -> None:
        if not 0 < self.rate < float('inf'):
            raise InputError(f'rate {self.rate} is not a positive number')


@dataclass
class Played:
    """What was sent."""

    messages: dict[str, int] = field(default_factory=dict)
    unanswered: int = 0
    """Images whose results did not come in time (lockstep)."""


def play_bag(
    source: Path | str,
    node: Node,
    playback: Playback,
    *,
    progress: bool = False,
    stop: Stop | None = None,
) -> Played:
    """Publish a bag through `node`, which nobody else may spin.

    Raises InputError, for a damaged bag when what lies before the damage is published.
    """
    stop = Stop() if stop is None else stop
    with BagReader(source) as reader:
        player = _Player(node, reader, playback, stop)
        try:
            player.wait_for_subscribers()
            total = None if playback.loop else sum(reader.counts.values())
            with tqdm(desc='play-bag', total=total, unit='message', disable=not progress) as bar:
                player.play_once(bar)
                while playback.loop and not stop.is_set():
                    player.play_once(bar)
        finally:
            player.flush()
            player.close()
    return player.played


class _Player:
    def __init__(self, node: Node, reader: BagReader, playback: Playback, stop: Stop) -> None:
        self.played = Played()
        self._node, self._reader, self._playback, self._stop = node, reader, playback, stop
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(node)
        self._publishers = {topic: self._publisher(topic) for topic in self._known_topics()}
        self._clock: Publisher[Clock] | None = None
        if playback.clock:
            self._clock = node.create_publisher(Clock, '/clock', 1)
        self._image_topic: str | None = None
        self._answers: Answers | None = None
        if playback.lockstep is not None:
            self._image_topic = reader.topic_of(IMAGE, playback.images)
            self._answers = Answers(node, playback.lockstep)

    def wait_for_subscribers(self) -> None:
        """Let discovery finish: what is sent before it is lost."""
        answers = self._answers
        if answers is None or self._image_topic is None:
            self._wait_for_anybody()
        else:
            image = self._publishers[self._image_topic]
            if not self._spin_until(lambda: _subscribed(image) and answers.connected(), START_S):
                raise InputError(
                    f'no active node {self._playback.lockstep} subscribes to {self._image_topic} '
                    f'({START_S:g} s waited)'
                )
        self._stop.wait(SETTLING_S)

    def play_once(self, bar: tqdm) -> None:
        """The bag from its first message to its last."""
        begin_s, first_ns = time.monotonic(), None
        for topic, stamp_ns, data in self._reader.messages(self._publishers):
            first_ns = stamp_ns if first_ns is None else first_ns
            self._sleep_until(begin_s, first_ns, stamp_ns)
            if self._stop.is_set():
                return
            if topic == self._image_topic and self._answers is not None:
                self._send_in_lockstep(self._publishers[topic], bytes(data), self._answers)
            else:
                self._publishers[topic].publish(bytes(data))
            self.played.messages[topic] = self.played.messages.get(topic, 0) + 1
            bar.update()

    def flush(self) -> None:
        """Let the last messages arrive; only reliable subscribers say when they did."""
        self._stop.wait(FLUSHING_S)
        deadline_s = time.monotonic() + ACKNOWLEDGING_S
        for topic, publisher in self._publishers.items():
            while not publisher.wait_for_all_acked(Duration(seconds=0.05)):
                if self._stop.is_set():
                    return
                if time.monotonic() > deadline_s:
                    log.warning('a subscriber has not taken the last messages of %s', topic)
                    break

    def close(self) -> None:
        """Give the node back."""
        if self._answers is not None:
            self._answers.close()
        self._executor.remove_node(self._node)
        self._executor.shutdown()

    def _wait_for_anybody(self) -> None:
        topics = self._reader.topics
        images = {topic: p for topic, p in self._publishers.items() if topics[topic] == IMAGE}
        wanted = images or self._publishers
        if not self._spin_until(lambda: any(map(_subscribed, wanted.values())), MATCHING_S):
            names = ', '.join(wanted)
            log.warning('nobody subscribes to %s after %g s: playing anyway', names, MATCHING_S)

    def _sleep_until(self, begin_s: float, first_ns: int, stamp_ns: int) -> None:
        """Wait for the moment of `stamp_ns` while /clock runs up to it."""
        rate, now_ns = self._playback.rate, first_ns
        while now_ns < stamp_ns:
            left_s = (stamp_ns - now_ns) / 1e9 / rate
            if self._stop.wait(min(left_s, CLOCK_PERIOD_S if self._clock else left_s)):
                return
            now_ns = min(first_ns + int((time.monotonic() - begin_s) * rate * 1e9), stamp_ns)
            self._tick(now_ns)
        self._tick(stamp_ns)

    def _tick(self, now_ns: int) -> None:
        if self._clock is not None:
            message = Clock()
            message.clock.sec, message.clock.nanosec = divmod(now_ns, 10**9)
            self._clock.publish(message)

    def _send_in_lockstep(self, images: Publisher, data: bytes, answers: Answers) -> None:
        """Publish an image and wait for its results; send it again if the node never got it."""
        answers.expect(data)
        images.publish(data)
        self._spin_until(lambda: answers.fate() != 'unknown', ANSWER_S)
        for _ in range(RESENDS):
            if answers.fate() != 'lost' or self._stop.is_set():
                break
            answers.again()
            images.publish(data)
            self._spin_until(lambda: answers.fate() != 'unknown', ANSWER_S)
        if not self._spin_until(lambda: answers.fate() == 'answered', LATE_S):
            self.played.unanswered += 1
            log.warning('no results for an image: rejected, lost, or slower than %g s', ANSWER_S)

    def _spin_until(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Run callbacks until the condition holds, `stop` is set, or (False) time is up."""
        deadline_s = time.monotonic() + timeout_s
        while not condition() and not self._stop.is_set():
            if time.monotonic() > deadline_s:
                return False
            self._executor.spin_once(timeout_sec=0.05)
        return True

    def _known_topics(self) -> Iterator[str]:
        for topic, kind in self._reader.topics.items():
            try:
                message_class(kind)
            except InputError as error:
                log.warning('%s is left out: %s', topic, error)
            else:
                yield topic

    def _publisher(self, topic: str) -> Publisher:
        durability = DurabilityPolicy.VOLATILE
        if self._reader.latched(topic):
            durability = DurabilityPolicy.TRANSIENT_LOCAL
        kind = message_class(self._reader.topics[topic])
        return self._node.create_publisher(
            kind, topic, QoSProfile(depth=10, durability=durability)
        )


def _subscribed(publisher: Publisher) -> bool:
    return publisher.get_subscription_count() > 0
