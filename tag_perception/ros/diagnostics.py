"""What /diagnostics says: the engine, and of each camera input, frame counts and latency."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from std_msgs.msg import Header

from tag_perception.ros.frames import Lookups
from tag_perception.ros.inputs import CameraInput
from tag_perception.ros.mailbox import Counts
from tag_perception.ros.rectification import is_distorted
from tag_perception.ros.stages import with_total
from tag_perception.runtime.engine import UNTRAINED, EngineStatus

PERCENTILES = (50, 95, 99)

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


class Report(NamedTuple):
    """One line of /diagnostics."""

    name: str
    level: bytes
    message: str
    values: dict[str, Any]
    camera: str = ''
    """Which of several cameras it is about."""


class Latencies:
    """Stage times of the frames of the last seconds. Any thread may add, any may read."""

    def __init__(self, window_s: float) -> None:
        self.window_s = window_s
        """Older frames are forgotten."""
        self._frames: deque[tuple[float, dict[str, float]]] = deque()
        self._lock = threading.Lock()

    def add(self, stages_ms: Mapping[str, float]) -> None:
        """Remember one frame, finished now."""
        with self._lock:
            self._frames.append((time.monotonic(), with_total(stages_ms)))
            self._forget()

    def rate_hz(self) -> float:
        """Frames per second over the window."""
        with self._lock:
            self._forget()
            return len(self._frames) / self.window_s

    def percentiles_ms(self) -> dict[str, tuple[float, ...]]:
        """p50, p95 and p99 of each stage and of their sum, `total`; empty without frames."""
        with self._lock:
            self._forget()
            frames = [stages_ms for _, stages_ms in self._frames]
        names = list(dict.fromkeys(chain.from_iterable(frames)))
        if not names:
            return {}
        # One call for all, for every camera's frames wait meanwhile.
        table = np.array([[*map(frame.get, names)] for frame in frames], float)
        percentile = np.nanpercentile if np.isnan(table).any() else np.percentile
        columns = percentile(table, PERCENTILES, axis=0).T.tolist()
        return {name: tuple(column) for name, column in zip(names, columns, strict=True)}

    def _forget(self) -> None:
        oldest_s = time.monotonic() - self.window_s
        while self._frames and self._frames[0][0] < oldest_s:
            self._frames.popleft()


def engine_report(
    state: str,
    status: EngineStatus | None,
    problem: str | None,
    jpeg: str = '',
    rebuilds: int = 0,
) -> Report:
    """The lifecycle state, the network, and the device it really runs on.

    `jpeg`: what decodes compressed images; `rebuilds`: how often the engine started anew.
    """
    if status is None:
        level, message = (ERROR, problem) if problem else (OK, f'the node is {state}')
        return Report('engine', level, message or '', {'state': state})
    remarks = [problem, status.fallback, None if status.trained else f'{UNTRAINED} weights']
    message = '; '.join(remark for remark in remarks if remark)
    level = ERROR if problem else WARN if message else OK
    height, width = status.network.input_size
    values = {
        'state': state,
        'device': status.device,
        'device_name': status.device_name,
        'precision': status.precision,
        'backend': status.backend,
        'rebuilds': rebuilds,
        'checkpoint': status.checkpoint,
        'trained': status.trained,
        'backbone': status.network.backbone,
        'network_input': f'{width}×{height}',
        'jpeg_decoder': jpeg,
    }
    return Report('engine', level, message or f'running on {status.device_name}', values)


def input_report(camera: CameraInput, stale_after_s: float, rectified: bool = False) -> Report:
    """Whether images and calibration come, and which topic is missing or wrong.

    `rectified`: the user says that the images are, whatever the calibration has.
    """
    state, message = camera.state(stale_after_s)
    level = OK if state in ('ok', 'inactive') else WARN
    # Drivers put the calibration of the raw image beside the rectified one as well.
    distorted = camera.info is not None and is_distorted(camera.info)
    if state == 'ok' and distorted and not rectified and 'image_rect' in camera.image_topic:
        level = WARN
        message = (
            f'the distortion in {camera.info_topic} is undone in {camera.image_topic}, which '
            'sounds rectified already: if it is, set rectified_input:=true'
        )
    values = {'state': state, 'image': camera.image_topic, 'camera_info': camera.info_topic}
    return Report('input', level, message, values)


def frames_report(counts: Counts, latencies: Latencies) -> Report:
    """What became of the frames since the node started."""
    values = {
        'received': counts.received,
        'processed': counts.processed,
        'superseded': counts.superseded,
        'rejected': counts.rejected,
        'under_way': counts.under_way,
        'rate_hz': f'{latencies.rate_hz():.2f}',
    }
    message = f'{counts.processed} of {counts.received} frames processed'
    return Report('frames', OK, message, values)


def latency_report(latencies: Latencies) -> Report:
    """p50, p95 and p99 per stage over the last seconds, from the image's stamp to the outputs."""
    percentiles_ms = latencies.percentiles_ms()
    values = {
        f'{stage}_p{percent}_ms': f'{value:.3f}'
        for stage, row in percentiles_ms.items()
        for percent, value in zip(PERCENTILES, row, strict=True)
    }
    if not values:
        return Report('latency', OK, f'no frame in the last {latencies.window_s:g} s', {})
    p50, p95, p99 = percentiles_ms['total']
    message = f'total p50 {p50:.1f} ms, p95 {p95:.1f} ms, p99 {p99:.1f} ms'
    return Report('latency', OK, message, values)


def transform_report(lookups: Lookups, target_frame: str) -> Report:
    """Whether boxes get to the frame they are wanted in."""
    missed = lookups.missed  # of a moment: frames go on
    values = {'target_frame': target_frame, 'misses': lookups.misses}
    if not target_frame:
        return Report('transform', OK, 'outputs are in the frame of the image', values)
    if missed is not None:
        message = f'target_frame: {missed}: boxes dropped'
        return Report('transform', WARN, message, values)
    return Report('transform', OK, f'outputs are in {target_frame}', values)


def outputs_report(problems: list[str]) -> Report:
    """Subscribers that get nothing although they are there."""
    message = '; '.join(problems) or 'every subscriber can be served'
    return Report('outputs', WARN if problems else OK, message, {'problems': len(problems)})


def to_latency(header: Header, stages_ms: Mapping[str, float]) -> DiagnosticArray:
    """One frame's time by stage in milliseconds, and their sum `total`."""
    values = with_total(stages_ms).items()
    pairs = [KeyValue(key=f'{name}_ms', value=f'{value:.3f}') for name, value in values]
    return DiagnosticArray(header=header, status=[DiagnosticStatus(name='latency', values=pairs)])


def start(node: Node, reports: Callable[[], list[Report]]) -> None:
    """Publish `reports()` on /diagnostics once a second, in every state of the node."""
    publisher = node.create_publisher(DiagnosticArray, '/diagnostics', 10)

    def publish() -> None:
        message = DiagnosticArray(status=[_status(node, report) for report in reports()])
        message.header.stamp = node.get_clock().now().to_msg()
        publisher.publish(message)

    # Steady time, because simulated time may stand still.
    node.create_timer(1.0, publish, clock=Clock(clock_type=ClockType.STEADY_TIME))


def _status(node: Node, report: Report) -> DiagnosticStatus:
    # The camera's part is that of its outputs: /perception/front: input beside ~/front/detections.
    return DiagnosticStatus(
        level=report.level,
        name=f'{node.get_fully_qualified_name()}{report.camera and "/" + report.camera}: '
        f'{report.name}',
        message=report.message,
        hardware_id='tag_perception',
        values=[KeyValue(key=key, value=str(value)) for key, value in report.values.items()],
    )
