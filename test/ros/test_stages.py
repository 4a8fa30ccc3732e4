from __future__ import annotations

import time

import pytest

from tag_perception.ros.stages import STAGES, Stages, with_total


def test_stages_have_no_gaps_between_them(monkeypatch):
    clock = iter([107_000_000, 120_000_000, 125_000_000, 126_000_000])
    monkeypatch.setattr(time, 'time_ns', lambda: next(clock))
    stages = Stages(100_000_000)
    stages.end('transport', 104_000_000)
    stages.end('wait')  # 107
    stages.end_engine({'upload': 1.0, 'preprocess': 2.0, 'network': 7.0, 'download': 3.0})  # 120
    stages.end('fill')  # 125
    stages.end('publish')  # 126
    assert stages.ms == pytest.approx(
        {
            'transport': 4.0, 'wait': 3.0, 'upload': 1.0, 'infer': 9.0, 'infer/preprocess': 2.0,
            'infer/network': 7.0, 'download': 3.0, 'fill': 5.0, 'publish': 1.0,
        }
    )  # fmt: skip
    assert [name for name in stages.ms if '/' not in name] == list(STAGES)
    assert with_total(stages.ms)['total'] == pytest.approx(26.0)


def test_decoding_and_upload_are_one_stage(monkeypatch):
    clock = iter([5_000_000, 8_000_000, 18_000_000])
    monkeypatch.setattr(time, 'time_ns', lambda: next(clock))
    stages = Stages()
    stages.end('upload')
    stages.end_engine({'upload': 2.0})
    assert stages.ms == pytest.approx({'upload': 5.0, 'infer': 8.0, 'download': 0.0})


def test_time_spent_waiting_for_the_thread_that_publishes_is_told(monkeypatch):
    clock = iter([0, 10_000_000, 14_000_000, 15_000_000])
    monkeypatch.setattr(time, 'time_ns', lambda: next(clock))
    stages = Stages()
    stages.end_engine({'network': 7.0, 'download': 3.0})
    stages.end('handover')
    stages.end('fill')
    assert (stages.ms['handover'], stages.ms['fill']) == pytest.approx((4.0, 1.0))
    assert with_total(stages.ms)['total'] == pytest.approx(15.0)


def test_time_spent_on_other_cameras_is_told(monkeypatch):
    clock = iter([0, 20_000_000])
    monkeypatch.setattr(time, 'time_ns', lambda: next(clock))
    stages = Stages()
    stages.end_engine({'network': 7.0, 'download': 3.0}, shared=True)
    assert list(stages.ms) == ['upload', 'infer', 'infer/network', 'download', 'batch']
    assert (stages.ms['infer'], stages.ms['batch']) == pytest.approx((7.0, 10.0))
    assert with_total(stages.ms)['total'] == pytest.approx(20.0)
