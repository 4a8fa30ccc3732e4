"""rclpy for the ROS tests, on a domain of its own, with processes to talk to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

from tag_perception.ros import transport

from .fakes import TIMEOUT_S

END_S = 2.0
"""A process ends this soon after a signal."""

# Own DDS domain and this machine only: other ROS processes must neither disturb nor be disturbed.
os.environ['ROS_DOMAIN_ID'] = str(10 + os.getpid() % 90)
os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'


@pytest.fixture(scope='session')
def ros() -> Iterator[None]:
    """rclpy, initialised once for all tests of this process."""
    transport.prepare()
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    yield
    rclpy.try_shutdown()


@pytest.fixture
def client(ros):
    """A node that talks to the one under test."""
    node = rclpy.create_node('client')
    yield node
    node.destroy_node()


@pytest.fixture
def spin_until(ros) -> Callable[..., None]:
    """`spin_until(condition, node, …)`: run the nodes' callbacks until the condition holds."""

    def spin(condition: Callable[[], bool], *nodes, timeout_s: float = TIMEOUT_S) -> None:
        executor = SingleThreadedExecutor()
        for node in nodes:
            executor.add_node(node)
        deadline = time.monotonic() + timeout_s
        try:
            while not condition():
                assert time.monotonic() < deadline, 'the condition never came true'
                executor.spin_once(timeout_sec=0.05)
        finally:
            for node in nodes:
                executor.remove_node(node)
            executor.shutdown()

    return spin


class Stopwatch:
    """Seconds within a `with` block, without those in which the machine stood still.

    Shared machines stall now and then: a nap of this thread that lasts far longer than it should
    is none of the tested process's doing, and counts as `STALL_S`.
    """

    NAP_S, STALL_S = 0.01, 0.1

    def __init__(self) -> None:
        self.seconds = 0.0
        self._end = threading.Event()
        self._counter = threading.Thread(target=self._count, daemon=True)

    def __enter__(self) -> Stopwatch:
        self._counter.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._counter.join()

    def _count(self) -> None:
        ended, since = False, time.monotonic()
        while not ended:
            ended = self._end.wait(self.NAP_S)
            now = time.monotonic()
            self.seconds += min(now - since, self.STALL_S)
            since = now


class Process:
    """A process of ours whose output is watched while it runs."""

    def __init__(self, *command: str, **environment: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, 'PYTHONUNBUFFERED': '1', **environment},
        )
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def output(self) -> str:
        return ''.join(self._lines)

    def wait_for(self, text: str) -> None:
        """Wait until `text` stands in the output."""
        deadline = time.monotonic() + 2 * TIMEOUT_S
        while text not in self.output:
            assert self._process.poll() is None, self.output
            assert time.monotonic() < deadline, f'{text!r} never came:\n{self.output}'
            time.sleep(0.02)

    def wait(self) -> int:
        """The exit code, when the process ends by itself."""
        code = self._process.wait(4 * TIMEOUT_S)
        self._reader.join()
        return code

    def end(self, number: int = signal.SIGINT) -> None:
        """Send a signal; the process must end in time, with exit code 0 and no traceback."""
        with Stopwatch() as watch:
            self._process.send_signal(number)
            code = self._process.wait(TIMEOUT_S)
        self._reader.join()
        assert code == 0, self.output
        assert 'Traceback' not in self.output, self.output
        assert watch.seconds < END_S, self.output

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def _read(self) -> None:
        assert self._process.stdout is not None
        while character := self._process.stdout.read(1):
            self._lines.append(character)


@pytest.fixture
def start() -> Iterator[Callable[..., Process]]:
    """`start('-m', 'tag_perception', …, NAME=value)`: run Python; killed when the test ends."""
    processes: list[Process] = []

    def run(*command: str, **environment: str) -> Process:
        processes.append(Process(*command, **environment))
        return processes[-1]

    yield run
    for process in processes:
        process.kill()


FAKES = str(Path(__file__).with_name('fakes.py'))
"""Script whose processes have a fake engine."""
