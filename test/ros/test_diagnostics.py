"""What the figures in /diagnostics cover."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tag_perception.ros import diagnostics
from tag_perception.ros.diagnostics import Latencies, latency_report
from tag_perception.ros.parameters import PerceptionConfig


def test_percentiles_are_those_of_the_last_ten_seconds(monkeypatch):
    now_s = [100.0]
    monkeypatch.setattr(diagnostics, 'time', SimpleNamespace(monotonic=lambda: now_s[0]))
    latencies = Latencies(PerceptionConfig.latency_window_s)
    for ms in range(1000):  # slow frames, which are forgotten
        latencies.add({'wait': 1e6 + ms, 'fill': 0.0})
    now_s[0] += 10.5
    for ms in range(101):
        latencies.add({'wait': float(ms), 'infer': 2.0, 'infer/network': 1.0})
    now_s[0] += 9.0
    values = latency_report(latencies).values
    assert {f'wait_p{p}_ms': values[f'wait_p{p}_ms'] for p in (50, 95, 99)} == {
        'wait_p50_ms': '50.000', 'wait_p95_ms': '95.000', 'wait_p99_ms': '99.000',
    }  # fmt: skip
    assert values['infer/network_p99_ms'] == '1.000'
    assert values['total_p50_ms'] == '52.000'  # a part of a stage is not added
    assert 'fill_p50_ms' not in values
    assert latencies.rate_hz() == pytest.approx(10.1)
    latencies.add({'wait': 50.0, 'fill': 7.0})  # of a frame that went another way
    values = latency_report(latencies).values
    assert [values[f'{stage}_p50_ms'] for stage in ('wait', 'infer', 'fill')] == [
        '50.000', '2.000', '7.000',
    ]  # fmt: skip
    now_s[0] += 10.5
    report = latency_report(latencies)
    assert (report.message, report.values) == ('no frame in the last 10 s', {})
