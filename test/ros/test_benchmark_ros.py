"""One camera measured: the whole chain once, small; and the arithmetic."""

from __future__ import annotations

import json

import pytest

from tag_perception.ros.benchmark_ros import format_table, ros2_benchmark
from tag_perception.ros.stages import STAGES


def test_the_chain_accounts_for_every_frame_and_its_time(start, tmp_path):
    path = tmp_path / 'ros.json'
    options = ['--rate', '20', '--size', '48x64', '--seconds', '3', '--engine', 'none']
    run = start('-m', 'tag_perception', 'benchmark', 'ros', *options, '--json', str(path))
    assert run.wait() == 0, run.output
    figures = json.loads(path.read_text())
    assert figures['benchmark'] == 'ros'
    assert figures['machine']['cpu_cores'] >= 1
    assert figures['backend']['checkpoint'] == 'none: constants'
    assert figures['frames_sent'] == 60
    assert 0 < figures['frames_received'] <= figures['frames_processed_by_node'] <= 60
    assert figures['frames_received'] == 60 - sum(figures['frames_lost'].values())
    assert min(figures['frames_by_output'].values()) >= figures['frames_received']
    latency, stages = figures['latency_ms'], figures['stages_ms']
    assert 0 < latency['p50'] <= latency['p95'] <= latency['p99']
    assert [name for name in stages if '/' not in name] == [*STAGES, 'total']
    assert latency['p50'] <= stages['total']['p50'] <= figures['camera_to_subscriber_ms']['p99']
    assert all(ms > 0 for ms in figures['cpu_ms_per_frame'].values())
    assert format_table(figures) in run.output


def test_a_checkpoint_that_is_missing_is_one_line(start):
    run = start('-m', 'tag_perception', 'benchmark', 'ros', '--checkpoint', 'missing.safetensors')
    assert run.wait() == 2
    assert 'missing.safetensors' in run.output.splitlines()[-1]
    assert 'Traceback' not in run.output


def test_figures_of_ros2_benchmark():
    second = 10**9
    complete = {0: second // 100, second: second + 3 * second // 100, 2 * second: 2 * second}
    figures = ros2_benchmark(4, complete)
    prefix = 'BasicPerformanceMetrics.'
    assert figures == {
        f'{prefix}NUM_FRAMES_SENT': 4,
        f'{prefix}NUM_MISSED_FRAMES': 1,
        f'{prefix}RECEIVED_DURATION': pytest.approx(1990.0),
        f'{prefix}MEAN_PLAYBACK_FRAME_RATE': pytest.approx(1.0),
        f'{prefix}MEAN_FRAME_RATE': pytest.approx(2 / 1.99),
        f'{prefix}MAX_LATENCY': pytest.approx(30.0),
        f'{prefix}MIN_LATENCY': 0.0,
        f'{prefix}MEAN_LATENCY': pytest.approx(40 / 3),
    }
    assert ros2_benchmark(3, {})[f'{prefix}NUM_MISSED_FRAMES'] == 3
