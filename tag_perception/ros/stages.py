"""Where the time of a frame goes: stages without gaps, all from one clock.

It is the system clock, for that one also made the stamp of the image: only so can the way from the
camera's process to ours be a stage like the others.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

STAGES = ('transport', 'wait', 'upload', 'infer', 'download', 'fill', 'publish')
"""In the order in which a frame goes through them:

transport: from the stamp to the callback; wait: in the mailbox; upload: decoding, rectification,
and the way of the pixels to the network's device; infer: from there to the decoded results, its
parts named `infer/…`; download: of the results; fill: results into messages; publish: all of them
but ~/latency, which tells it, and ~/vision_info, which ends the frame. Between download and fill,
where cameras share an engine, a frame stands by while others are worked on: `batch`; and where the
next frames are on the GPU meanwhile, it waits for the thread that publishes: `handover`.
"""
PARTS = ('preprocess', 'network', 'decode')
"""What the engine tells about `infer`."""


class Stages:
    """The stages of one frame; each begins where the last one ended."""

    def __init__(self, sent_ns: int | None = None) -> None:
        """`sent_ns`: system time at which the first stage began; None: now."""
        self.ms: dict[str, float] = {}
        self._since_ns = time.time_ns() if sent_ns is None else sent_ns

    def end(self, stage: str, now_ns: int | None = None) -> None:
        """The time since the last stage was spent in `stage`."""
        now_ns = time.time_ns() if now_ns is None else now_ns
        self._add(stage, (now_ns - self._since_ns) / 1e6)
        self._since_ns = now_ns

    def end_engine(self, engine_ms: Mapping[str, float], shared: bool = False) -> None:
        """The time since the last stage was spent in the engine, which tells how, roughly.

        What it does not account for was spent on other frames if the engine is `shared`, and is
        `infer` if not.
        """
        now_ns = time.time_ns()
        rest_ms = (now_ns - self._since_ns) / 1e6 - sum(engine_ms.values())
        parts_ms = {part: engine_ms[part] for part in PARTS if part in engine_ms}
        self._add('upload', engine_ms.get('upload', 0.0))
        self._add('infer', sum(parts_ms.values()) + (0.0 if shared else rest_ms))
        for part, part_ms in parts_ms.items():
            self._add(f'infer/{part}', part_ms)
        self._add('download', engine_ms.get('download', 0.0))
        if shared:
            self._add('batch', rest_ms)
        self._since_ns = now_ns

    def _add(self, stage: str, ms: float) -> None:
        self.ms[stage] = self.ms.get(stage, 0.0) + ms


def with_total(stages_ms: Mapping[str, float]) -> dict[str, float]:
    """The stages, and as `total` the sum of those that are not parts of another."""
    return {**stages_ms, 'total': sum(ms for name, ms in stages_ms.items() if '/' not in name)}
