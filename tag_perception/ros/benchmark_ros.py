"""The way of one camera's frames through DDS and the node, measured hop by hop and stage by stage.

Camera, node and subscriber are processes of their own, with the transport of the launch files. A
frame's latency runs from its arrival at the node (the call of the callback) to the moment the last
of its outputs is published, as the node tells it on ~/latency. Keys that ros2_benchmark has too
bear its names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tag_perception.ros.benchmark_cameras import (
    COUNTED,
    WATCHED,
    Played,
    Rig,
    percentiles,
    warm,
)
from tag_perception.ros.process import Stop

HOPS = ('camera_to_node', 'in_node', 'node_to_subscriber')
"""Where a frame may be lost; in the node: superseded by a newer one, or rejected."""


def run(rig: Rig, stop: Stop) -> dict[str, Any]:
    """The figures as plain data, empty if `stop` ended the run. Raises InputError."""
    played = rig.play(stop)
    if stop.is_set():
        return {}
    return {**rig.about(played.watch), 'rate_hz': rig.rates_hz[0], **summarize(played)}


def summarize(played: Played) -> dict[str, Any]:
    """Frames at every hop, and their time by stage."""
    watch = played.watch
    ((name, sent),) = played.sent.items()
    counts = {what: watch.counts(name)[what] for what in COUNTED}
    complete = watch.complete(name)
    frames = warm(watch.stages_ms[name])
    lost = (
        sent - counts['received'],
        counts['received'] - counts['processed'],
        counts['processed'] - len(complete),
    )
    return {
        'frames_sent': sent,
        'frames_received': len(complete),
        **{f'frames_{what}_by_node': number for what, number in counts.items()},
        'frames_lost': dict(zip(HOPS, lost, strict=True)),
        'frames_by_output': {
            topic: sum(topic in arrivals for arrivals in watch.arrivals[name].values())
            for topic in WATCHED
        },
        'latency_ms': percentiles([f['total'] - f['transport'] for f in frames.values()]),
        'stages_ms': {
            stage: percentiles([frame[stage] for frame in frames.values()])
            for stage in next(iter(frames.values()), {})
        },
        'camera_to_subscriber_ms': percentiles(watch.latencies(name)),
        'cpu_ms_per_frame': {who: 1e3 * s / max(sent, 1) for who, s in played.cpu_s.items()},
        **ros2_benchmark(sent, complete),
    }


def ros2_benchmark(sent: int, complete: Mapping[int, int]) -> dict[str, float]:
    """Stamps and arrivals at the subscriber, in ns, in the terms of ros2_benchmark."""
    arrivals, stamps = sorted(complete.values()), sorted(complete)
    figures = {'NUM_FRAMES_SENT': float(sent), 'NUM_MISSED_FRAMES': float(sent - len(complete))}
    if len(complete) > 1:
        latencies_ms = [(at_ns - stamp_ns) / 1e6 for stamp_ns, at_ns in complete.items()]
        duration_s = (arrivals[-1] - arrivals[0]) / 1e9
        figures |= {
            'RECEIVED_DURATION': 1e3 * duration_s,
            'MEAN_PLAYBACK_FRAME_RATE': (len(stamps) - 1) / ((stamps[-1] - stamps[0]) / 1e9),
            'MEAN_FRAME_RATE': (len(arrivals) - 1) / duration_s,
            'MAX_LATENCY': max(latencies_ms),
            'MIN_LATENCY': min(latencies_ms),
            'MEAN_LATENCY': sum(latencies_ms) / len(latencies_ms),
        }
    return {f'BasicPerformanceMetrics.{name}': value for name, value in figures.items()}


def format_table(figures: Mapping[str, Any]) -> str:
    """The same for the reader."""
    lost = ', '.join(f'{hop} {number}' for hop, number in figures['frames_lost'].items())
    cpu = ', '.join(f'{who} {ms:.1f}' for who, ms in figures['cpu_ms_per_frame'].items())
    rows = {
        **figures['stages_ms'],
        'arrival → last output published': figures['latency_ms'],
        'stamp → last output at subscriber': figures['camera_to_subscriber_ms'],
    }
    lines = [
        f'{figures["size"]} at {figures["rate_hz"]:g} Hz for {figures["seconds"]:g} s, '
        f'engine {figures["engine"]}',
        f'frames: {figures["frames_sent"]} sent, {figures["frames_received"]} received '
        f'with all outputs; lost: {lost}',
        f'CPU ms per frame: {cpu}',
        f'{"ms":36}{"p50":>9}{"p95":>9}{"p99":>9}',
    ]
    for name, row in rows.items():
        cells = ('–' if value is None else f'{value:.2f}' for value in row.values())
        lines.append(f'{name:36}' + ''.join(f'{cell:>9}' for cell in cells))
    return '\n'.join(lines)
