"""record-bag: what a perception node publishes, written into a bag as it comes.

Messages are stored as the bytes that arrive. Log time is the stamp in the message, so that a
recording lies beside the bag it was made from, whatever clock that was played on.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from tqdm import tqdm

from tag_perception.ros.outputs import OUTPUTS
from tag_perception.ros.process import Stop
from tag_perception.ros.session import POLL_S
from tag_perception.ros.storage import BagWriter, Storage, type_name

DEPTH = 20
"""Messages per topic that may wait for the disk."""
DRAIN_S = 0.5

DIAGNOSTICS = '/diagnostics'


def record_bag(
    output: Path | str,
    node: Node,
    *,
    perception: str = '/perception',
    lazy: bool = False,
    storage: Storage = 'mcap',
    on_ready: Callable[[int], object] = lambda topics: None,
    progress: bool = False,
    stop: Stop | None = None,
) -> dict[str, int]:
    """Record the outputs of the node `perception`, and /diagnostics, until `stop`.

    Runs `node`, which nobody else may spin. `lazy` records the outputs that are made on demand as
    well. `on_ready(number of topics)` is called once, when every topic has a publisher and the
    node has been heard on /diagnostics: nothing is missed from then on. Returns the number of
    messages by topic. Raises InputError.
    """
    stop = Stop() if stop is None else stop
    # The subscription to /diagnostics is the last one to be announced: a node that is heard there
    # has learnt of the others before.
    greeting, heard = f'{perception}: '.encode(), False
    with BagWriter(output, storage) as writer:
        stop.on_abandon(writer.close)
        with tqdm(desc='record-bag', unit='message', disable=not progress) as bar:

            def write(topic: str, kind: type, latched: bool, data: bytes) -> None:
                nonlocal heard
                heard = heard or (topic == DIAGNOSTICS and greeting in data)
                stamp_ns = _stamp_ns(data)
                if not stamp_ns and kind is DiagnosticArray:
                    return  # simulated time has not begun: there is no time to log it at
                stamp_ns = stamp_ns or time.time_ns()
                writer.write_bytes(topic, type_name(kind), data, stamp_ns, latched)
                bar.update()

            topics = {
                f'{perception}/{output.topic}': (output.type, output.latched)
                for output in OUTPUTS
                if lazy or not output.lazy
            }
            topics[DIAGNOSTICS] = (DiagnosticArray, False)
            subscriptions = [
                node.create_subscription(
                    kind, topic, partial(write, topic, kind, latched), _qos(latched), raw=True
                )
                for topic, (kind, latched) in topics.items()
            ]
            executor = SingleThreadedExecutor()
            executor.add_node(node)
            ready = False
            while not stop.is_set():
                executor.spin_once(timeout_sec=POLL_S)
                if heard and not ready and all(s.get_publisher_count() for s in subscriptions):
                    ready = True
                    on_ready(len(topics))
            _drain(executor, writer)
            executor.remove_node(node)
            executor.shutdown()
    return writer.counts


def _drain(executor: SingleThreadedExecutor, writer: BagWriter) -> None:
    """Write what had already arrived when `stop` came; a live camera never runs dry, so soon."""
    end_s, before = time.monotonic() + DRAIN_S, -1
    while time.monotonic() < end_s and sum(writer.counts.values()) > before:
        before = sum(writer.counts.values())
        executor.spin_once(timeout_sec=0.1)


def _qos(latched: bool) -> QoSProfile:
    if latched:
        return QoSProfile(depth=DEPTH, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    return QoSProfile(depth=DEPTH)


def _stamp_ns(data: bytes) -> int:
    """Stamp of a serialized message that begins with a header."""
    seconds, nanoseconds = struct.unpack_from('<iI' if data[1] & 1 else '>iI', data, 4)
    return seconds * 10**9 + nanoseconds
