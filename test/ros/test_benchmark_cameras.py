"""Several cameras measured: the whole chain once, small; and the arithmetic."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import numpy as np
import pytest

from tag_perception import cli
from tag_perception.config import InputError
from tag_perception.core.structures import Camera
from tag_perception.ros import streams
from tag_perception.ros.benchmark_cameras import Rig, fairness, format_table, percentiles
from tag_perception.ros.constant import BOXES, ConstantEngine
from tag_perception.runtime.engine import EngineConfig


def test_the_chain_accounts_for_every_frame_of_every_camera(start, tmp_path):
    path = tmp_path / 'cameras.json'
    options = ['--cameras', '3', '--rate', '20', '10', '2', '--size', '48x64']
    options += ['--seconds', '3', '--engine', 'none', '--json', str(path)]
    run = start('-m', 'tag_perception', 'benchmark', 'cameras', *options)
    assert run.wait() == 0, run.output
    figures = json.loads(path.read_text())
    assert figures['benchmark'] == 'cameras'
    assert figures['machine']['cpu_cores'] >= 1
    assert [row['rate_hz'] for row in figures['cameras']] == [20, 10, 2]
    assert [row['frames_sent'] for row in figures['cameras']] == [60, 30, 6]
    for row in figures['cameras']:
        ended = ('processed', 'superseded', 'rejected')
        assert row['frames_received'] == sum(row[f'frames_{what}'] for what in ended)
        assert 0 < row['frames_delivered'] <= row['frames_processed'] <= row['frames_sent']
        assert row['frames_rejected'] == 0
        assert 0 < row['latency_ms']['p50'] <= row['latency_ms']['p99']
        assert {'transport', 'batch', 'fill', 'publish'} <= row['stages_ms'].keys()
    for what in ('sent', 'received', 'delivered'):
        total = sum(row[f'frames_{what}'] for row in figures['cameras'])
        assert figures[f'frames_{what}'] == total
    assert format_table(figures) in run.output


RIG = Rig((10.0,), (48, 64), 5.0, 'none', 'tag_slim', 'cpu')


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        ({'rates_hz': ()}, 'at least one camera'),
        ({'rates_hz': (10.0, 0.0)}, 'above 0 Hz'),
        ({'rates_hz': (float('nan'),)}, 'above 0 Hz'),
        ({'seconds': 1.0}, 'more than 1'),
        ({'seconds': float('nan')}, 'more than 1'),
    ],
)
def test_a_senseless_rig_is_refused(change, said):
    with pytest.raises(InputError, match=said):
        replace(RIG, **change)


def test_as_many_rates_as_cameras_or_one(capsys):
    assert cli.main(['benchmark', 'cameras', '--cameras', '3', '--rate', '10', '2']) == 2
    assert '--rate has 2 values: give one, or one per camera' in capsys.readouterr().err


class Counted:
    def __init__(self) -> None:
        self.times_s: list[float] = []

    def send(self) -> None:
        self.times_s.append(time.monotonic())


def test_streams_keep_their_rates_beside_each_other():
    fast, slow = Counted(), Counted()
    rates = {'fast': 100.0, 'slow': 10.0}
    begin_s = time.monotonic()
    streams.play({'fast': fast, 'slow': slow}, rates, 0.5, lambda s: bool(time.sleep(s)))
    assert (len(fast.times_s), len(slow.times_s)) == (50, 5)
    for stream, rate_hz in ((fast, 100.0), (slow, 10.0)):
        due_s = begin_s + np.arange(len(stream.times_s)) / rate_hz
        assert (np.array(stream.times_s) >= due_s - 1e-3).all()  # never early


def test_a_stream_that_is_ended_sends_no_more():
    stream = Counted()
    streams.play({'one': stream}, {'one': 10.0}, 100.0, lambda s: len(stream.times_s) == 3)
    assert len(stream.times_s) == 3


def test_constants_have_the_size_of_their_image_and_boxes_where_there_is_a_camera():
    engine = ConstantEngine(EngineConfig())
    images = [np.zeros((4, 6, 3), np.uint8), np.zeros((8, 6, 3), np.uint8)]
    with_boxes, without = engine.batch(images, [Camera(6, 4, 5.0, 5.0, 3.0, 2.0), None])
    assert with_boxes.semantic.shape == with_boxes.depth.shape == (4, 6)
    assert without.depth.shape == (8, 6)
    assert len(with_boxes.detection3d) == BOXES
    assert without.detection3d is None


def test_fairness_is_one_for_equals_and_one_of_n_for_a_single_winner():
    assert fairness([0.3, 0.3, 0.3]) == pytest.approx(1.0)
    assert fairness([1.0, 0.0, 0.0, 0.0]) == pytest.approx(0.25)
    assert fairness([0.0, 0.0]) == 0.0
    assert percentiles([]) == {'p50': None, 'p95': None, 'p99': None}
    assert percentiles([1.0, 3.0])['p50'] == 2.0
