"""Several cameras through one node, measured: streams → DDS → node → DDS → subscriber.

The streams and the node are processes of their own; this one subscribes to detections, mask and
depth of every camera. A frame's latency runs from its stamp, set as it is published, to the
arrival of the last of the three, both told by the clock of the one machine.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import yaml
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from tag_perception.config import InputError
from tag_perception.ros import session, transport
from tag_perception.ros.children import Child, Children
from tag_perception.ros.diagnostics import PERCENTILES
from tag_perception.ros.inputs import below
from tag_perception.ros.outputs import OUTPUTS
from tag_perception.ros.process import Stop
from tag_perception.ros.receiver import Receiver

Value = TypeVar('Value')

NODE = '/perception'
WATCHED = ('detections', 'semantic/image', 'depth/image')
"""A frame has arrived when all of these have."""
COUNTED = ('received', 'processed', 'superseded', 'rejected')
FRAMES = ('sent', *COUNTED, 'delivered')
START_S = 120.0
SETTLE_S = 10.0
WARM_UP_S = 1.0
"""Frames of the first second are counted; their latency is not."""


@dataclass(frozen=True)
class Rig:
    """What to measure. Raises InputError for what makes no sense."""

    rates_hz: tuple[float, ...]
    """Of each camera."""
    size: tuple[int, int]
    """Height and width of the images, pixels."""
    seconds: float
    engine: str
    """none: constants instead of a network; auto: the untrained preset."""
    preset: str
    device: str
    checkpoint: str = 'random'
    alone: bool = False
    """The one camera has no name, as the node has it by default."""

    def __post_init__(self) -> None:
        if not self.rates_hz or not all(rate > 0 for rate in self.rates_hz):
            raise InputError(f'rates {self.rates_hz}: at least one camera, each above 0 Hz')
        if not self.seconds > WARM_UP_S:
            raise InputError(f'seconds {self.seconds:g}: more than {WARM_UP_S:g}, for warming up')

    @property
    def names(self) -> list[str]:
        """Of the cameras."""
        if self.alone:
            return ['']
        return [f'camera{number}' for number in range(1, len(self.rates_hz) + 1)]

    def run(self, stop: Stop) -> dict[str, Any]:
        """The figures as plain data, empty if `stop` ended the run. Raises InputError."""
        played = self.play(stop)
        return {} if stop.is_set() else self._summarize(played.sent, played.watch)

    def play(self, stop: Stop) -> Played:
        """What was sent, and what was heard of it. Raises InputError."""
        session.isolate()
        with (
            tempfile.TemporaryDirectory(prefix='tag_perception_') as folder,
            Children() as children,
            session.client('benchmark_cameras') as ros,
            ExitStack() as on_exit,
        ):
            stop.on_abandon(children.abandon)
            watch = Watch(ros, self.names, children, stop)
            on_exit.callback(watch.close)
            height, width = self.size
            transport.populate(height * width * len(self.names))
            node = self._start_node(children, Path(folder))
            watch.until(watch.connected, START_S, node)
            streams = self._start_streams(children, Path(folder))
            watch.until(lambda: streams.said('playing'), START_S, streams)
            clocks = {
                'camera': streams.cpu_s, 'node': node.cpu_s, 'subscriber': time.process_time
            }  # fmt: skip
            before_s = {who: clock() for who, clock in clocks.items()}
            watch.until(lambda: streams.said('sent '), START_S + self.seconds, streams)
            sent = numbers_sent(streams)
            watch.settle()
            cpu_s = {who: clock() - before_s[who] for who, clock in clocks.items()}
        return Played(sent, watch, cpu_s)

    def _start_node(self, children: Children, folder: Path) -> Child:
        values = {
            **({} if self.alone else {'cameras': self.names, 'latency_window_s': 3600.0}),
            'engine.preset': self.preset,
            'engine.checkpoint': self.checkpoint,
            'engine.device': self.device,
        }
        file = folder / 'node.yaml'
        file.write_text(yaml.safe_dump({'/**': {'ros__parameters': values}}))
        arguments = ['--ros-args', '--params-file', str(file)]
        log = folder / 'node.log'
        if self.engine == 'none':
            module = 'tag_perception.ros.constant'
            return children.start('the node', arguments, log, module)
        return children.start('the node', ['node', *arguments], log)

    def _start_streams(self, children: Children, folder: Path) -> Child:
        height, width = self.size
        rates = [f'{n}={hz}' for n, hz in zip(self.names, self.rates_hz, strict=True)]
        arguments = [str(self.seconds), f'{height}x{width}', *rates]
        log = folder / 'streams.log'
        return children.start('the cameras', arguments, log, 'tag_perception.ros.streams')

    def about(self, watch: Watch) -> dict[str, Any]:
        """What was measured."""
        engine = watch.reports[f'{NODE}: engine']
        return {
            'engine': self.engine,
            'backend': {name: engine[name] for name in ('device', 'device_name', 'checkpoint')},
            'size': 'x'.join(map(str, self.size)),
            'seconds': self.seconds,
        }

    def _summarize(self, sent: Mapping[str, int], watch: Watch) -> dict[str, Any]:
        cameras = [
            summarize(name, rate_hz, sent[name], self.seconds, watch)
            for name, rate_hz in zip(self.names, self.rates_hz, strict=True)
        ]
        totals = {f'frames_{what}': sum(c[f'frames_{what}'] for c in cameras) for what in FRAMES}
        return {
            **self.about(watch),
            **totals,
            'latency_ms': percentiles([ms for name in self.names for ms in watch.latencies(name)]),
            'fairness': fairness([c['frames_processed'] / c['frames_sent'] for c in cameras]),
            'cameras': cameras,
        }


@dataclass(frozen=True)
class Played:
    """A run that is over."""

    sent: Mapping[str, int]
    """Frames of each camera."""
    watch: Watch
    cpu_s: Mapping[str, float]
    """Processor time of camera, node and subscriber while frames were sent."""


class Watch:
    """Subscribes to what the node says and makes, and looks after the other processes."""

    def __init__(self, ros: Node, names: Sequence[str], children: Children, stop: Stop) -> None:
        self.reports: dict[str, dict[str, str]] = {}
        """The newest values of each report by its name."""
        self._ros, self._children, self._stop = ros, children, stop
        self._problem: InputError | None = None
        self.arrivals: dict[str, dict[bytes, dict[str, int]]] = {name: {} for name in names}
        """Of each camera's frames, by stamp: the system time in ns at which each topic came."""
        self.stages_ms: dict[str, dict[int, dict[str, float]]] = {name: {} for name in names}
        """Of each camera's frames, by stamp in ns: the node's own account of the time."""
        ros.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)
        for name in names:
            topic = f'{NODE}/{below(name, "latency")}'
            ros.create_subscription(DiagnosticArray, topic, partial(self._on_latency, name), 10)
        self._receivers = [Receiver(ros) for _ in names]
        self._subscriptions = [
            receiver.subscribe(
                output.type,
                f'{NODE}/{below(name, output.topic)}',
                partial(self._on_output, name, output.topic),
                qos_profile=output.qos(),
                raw=True,
            )
            for receiver, name in zip(self._receivers, names, strict=True)
            for output in OUTPUTS
            if output.topic in WATCHED
        ]
        for receiver in self._receivers:
            receiver.start()

    def close(self) -> None:
        """Unsubscribe."""
        for receiver in self._receivers:
            receiver.destroy()

    def connected(self) -> bool:
        """Whether the node publishes what is watched, and is active."""
        active = self.reports.get(f'{NODE}: engine', {}).get('state') == 'active'
        return active and all(s.get_publisher_count() for s in self._subscriptions)

    def until(self, condition: Callable[[], bool], timeout_s: float, who: Child) -> None:
        """Wait for `condition` or `stop`. Raises InputError if `who` lets the time run out."""
        if not self._spin(condition, timeout_s):
            raise InputError(f'{who.name} is not ready after {timeout_s:g} s: {who.last_line()}')

    def settle(self) -> None:
        """Wait until the node has finished what it got, and has told so."""
        deadline_s, before = time.monotonic() + SETTLE_S, None
        while time.monotonic() < deadline_s and not self._stop.is_set():
            self._spin(lambda: False, 1.5)  # diagnostics come once a second
            now = [self.counts(name) for name in self.arrivals]
            if now == before and not any(counts['under_way'] for counts in now):
                return
            before = now

    def counts(self, name: str) -> dict[str, int]:
        """What became of a camera's frames, by the node's own account."""
        frames = self.report(name, 'frames')
        return {key: int(value) for key, value in frames.items() if key != 'rate_hz'}

    def latencies(self, name: str) -> list[float]:
        """Milliseconds from the stamp to the last output of each complete frame."""
        complete = warm(self.complete(name))
        return [(last_ns - stamp_ns) / 1e6 for stamp_ns, last_ns in complete.items()]

    def complete(self, name: str) -> dict[int, int]:
        """Stamp and last arrival, both in ns, of every frame of which all outputs came."""
        return {
            to_ns(stamp): max(arrivals.values())
            for stamp, arrivals in self.arrivals[name].items()
            if len(arrivals) == len(WATCHED)
        }

    def report(self, name: str, kind: str) -> dict[str, str]:
        """The newest values that the node reports about a camera."""
        return self.reports.get(f'{below(NODE, name) if name else NODE}: {kind}', {})

    def _spin(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Run callbacks until the condition holds or `stop` is set; False if time is up."""
        deadline_s = time.monotonic() + timeout_s
        looked_s = 0.0
        executor = SingleThreadedExecutor()
        executor.add_node(self._ros)
        try:
            while not self._stop.is_set():
                if time.monotonic() - looked_s > 0.2:  # looking costs time that frames need
                    if self._problem is not None:
                        raise self._problem
                    if condition():
                        return True
                    self._children.check()
                    looked_s = time.monotonic()
                    if looked_s > deadline_s:
                        return False
                executor.spin_once(timeout_sec=0.1)
            return True
        finally:
            executor.remove_node(self._ros)
            executor.shutdown()

    def _on_output(self, name: str, topic: str, message: memoryview, published_ns: int) -> None:
        # After four bytes about the encoding comes the header, and first in it the stamp.
        self.arrivals[name].setdefault(bytes(message[4:12]), {})[topic] = time.time_ns()

    def _on_latency(self, name: str, message: DiagnosticArray) -> None:
        stamp, pairs = message.header.stamp, message.status[0].values
        self.stages_ms[name][stamp.sec * 10**9 + stamp.nanosec] = {
            pair.key.removesuffix('_ms'): float(pair.value) for pair in pairs
        }

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            self.reports[status.name] = {pair.key: pair.value for pair in status.values}
            if status.name == f'{NODE}: engine' and status.level == DiagnosticStatus.ERROR:
                self._problem = InputError(f'{NODE}: {status.message}')


def summarize(
    name: str, rate_hz: float, sent: int, seconds: float, watch: Watch
) -> dict[str, Any]:
    """The figures of one camera."""
    counts = watch.counts(name)
    latency = watch.report(name, 'latency')
    return {
        'name': name,
        'rate_hz': rate_hz,
        'frames_sent': sent,
        **{f'frames_{what}': counts[what] for what in COUNTED},
        'frames_delivered': len(watch.complete(name)),
        'processed_hz': counts['processed'] / seconds,
        'latency_ms': percentiles(watch.latencies(name)),
        'stages_ms': {
            key.removesuffix('_p50_ms'): float(value)
            for key, value in latency.items()
            if key.endswith('_p50_ms')
        },
    }


def to_ns(stamp: bytes) -> int:
    """Nanoseconds of a serialised stamp."""
    return int.from_bytes(stamp[:4], 'little') * 10**9 + int.from_bytes(stamp[4:], 'little')


def warm(frames: Mapping[int, Value]) -> dict[int, Value]:
    """Without the frames of the first second; the keys are stamps in ns."""
    first_ns = min(frames, default=0)
    return {ns: value for ns, value in frames.items() if ns >= first_ns + WARM_UP_S * 1e9}


def numbers_sent(streams: Child) -> dict[str, int]:
    """What the cameras have printed at the end; empty if they have not come so far."""
    lines = streams.log.read_text(errors='replace').splitlines()
    (found,) = [line for line in lines if line.startswith('sent ')] or ['sent {}']
    return dict(json.loads(found.removeprefix('sent ')))


def percentiles(values_ms: Sequence[float]) -> dict[str, float | None]:
    """p50, p95 and p99; None where there are no values."""
    if not values_ms:
        return {f'p{percent}': None for percent in PERCENTILES}
    found = np.percentile(values_ms, PERCENTILES)
    return {f'p{percent}': float(v) for percent, v in zip(PERCENTILES, found, strict=True)}


def fairness(shares: Sequence[float]) -> float:
    """Jain's index of the share of its frames that each camera gets processed.

    1: all the same; 1/n: one camera gets everything.
    """
    squares = sum(share**2 for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else 0.0


def format_table(figures: Mapping[str, Any]) -> str:
    """The same for the reader."""
    lines = [
        f'{figures["size"]}, engine {figures["engine"]}, {figures["seconds"]:g} s, '
        f'fairness {figures["fairness"]:.3f}',
        f'{"camera":12}{"Hz":>6}' + ''.join(f'{name:>11}' for name in FRAMES)
        + f'{"out Hz":>8}{"p50 ms":>9}{"p95 ms":>9}{"p99 ms":>9}  stages p50 ms',
    ]  # fmt: skip
    for row in figures['cameras']:
        ms = ['–' if value is None else f'{value:.1f}' for value in row['latency_ms'].values()]
        stages = ' '.join(f'{name} {value:.1f}' for name, value in row['stages_ms'].items())
        lines.append(
            f'{row["name"]:12}{row["rate_hz"]:>6g}'
            + ''.join(f'{row[f"frames_{name}"]:>11}' for name in FRAMES)
            + f'{row["processed_hz"]:>8.1f}{"".join(f"{text:>9}" for text in ms)}  {stages}'
        )
    return '\n'.join(lines)
