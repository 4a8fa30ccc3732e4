"""One process's stay in the ROS graph: transport settings, init, spinning, shutdown, logging."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.impl.rcutils_logger import RcutilsLogger
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from tag_perception.config import InputError
from tag_perception.ros import transport
from tag_perception.ros.process import Stop

if TYPE_CHECKING:
    from tag_perception.ros.node import PerceptionNode

POLL_S = 0.2
"""How often a spinning thread asks whether it has to end."""
SWITCH_S = 1e-4
"""How long a thread of the node waits for Python's lock before it asks the owner to let go. Python
has 5 ms by itself, as long as all the work on a frame around the network."""


def isolate() -> None:
    """A domain of our own, unless the user chose one: other robots must not answer."""
    os.environ.setdefault('ROS_DOMAIN_ID', str(1 + os.getpid() % 100))
    os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')


@contextmanager
def session(arguments: Sequence[str] | None = None) -> Iterator[None]:
    """Initialise rclpy with ROS arguments and shut it down at the end. Signals stay ours.

    Raises InputError where the arguments or a parameter file cannot be read.
    """
    transport.prepare()
    try:
        rclpy.init(
            args=None if arguments is None else list(arguments),
            signal_handler_options=SignalHandlerOptions.NO,
        )
    except Exception as error:
        raise InputError(f'ROS arguments: {" ".join(str(error).split())}') from error
    try:
        yield
    finally:
        rclpy.try_shutdown()


@contextmanager
def client(name: str, arguments: Sequence[str] | None = None) -> Iterator[Node]:
    """A session with one plain node."""
    with session(arguments):
        node = rclpy.create_node(name)
        forward_log(node)
        yield node
        node.destroy_node()


def serve(
    build: Callable[[], PerceptionNode], stop: Stop, arguments: Sequence[str] | None = None
) -> int:
    """Run the node that `build` makes until `stop`; the exit code. Raises InputError."""
    sys.setswitchinterval(SWITCH_S)
    with session(arguments):
        node = build()
        forward_log(node)
        stop.on_abandon(node.farewell)
        node.autostart()
        spin(node, stop)
        node.close()
    return 0


def spin(node: Node, stop: Stop) -> None:
    """Run the node's callbacks on this thread until `stop`.

    What they raise is logged: rclpy itself raises on service requests that make no sense, such as
    a parameter of no known type, and no peer may end the node.
    """
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    while not stop.is_set():
        try:
            executor.spin_once(timeout_sec=POLL_S)
        except Exception as error:
            if not rclpy.ok():
                raise
            text = f'a callback failed: {type(error).__name__}: {error}'
            node.get_logger().error(text, throttle_duration_sec=1.0)
    executor.remove_node(node)
    executor.shutdown()


def forward_log(node: Node) -> None:
    """Let what the core says through Python's logging appear in the node's log."""
    core = logging.getLogger('tag_perception')
    core.setLevel(logging.INFO)  # what is shown is the choice of the node's logger
    core.addHandler(_RosLog(node.get_logger()))


class _RosLog(logging.Handler):
    def __init__(self, logger: RcutilsLogger) -> None:
        super().__init__(logging.INFO)
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        """One line of the node's log at the same level."""
        # rcutils remembers one level per place in the code, hence three places.
        text = record.getMessage()
        if record.levelno >= logging.ERROR:
            self._logger.error(text)
        elif record.levelno >= logging.WARNING:
            self._logger.warning(text)
        else:
            self._logger.info(text)
