"""Thousands of frames through the node and a recording's worth of messages: memory stays flat."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from sensor_msgs.msg import Image

from tag_perception.ros import pipeline
from tag_perception.ros.parameters import PerceptionConfig
from tag_perception.runtime.engine import Engine, EngineConfig

from .fakes import make_image, make_info
from .rig import Rig, resident_bytes

FRAMES = int(os.environ.get('SOAK_FRAMES', '20000'))
WARM_UP = 0.1
"""Share of the frames after which memory has to stay what it is."""
GROWTH = 0.01
SIZE, SMALL = (48, 64), (24, 32)


def growth(step: Callable[[int], object], frames: int) -> float:
    """Share by which memory grew over `frames` steps once the first tenth was done."""
    begin_s, seen = time.monotonic(), []
    tenth = max(1, int(WARM_UP * frames))
    for index in range(frames):
        step(index)
        if (index + 1) % tenth == 0:
            seen.append(resident_bytes())
            print(
                f'{index + 1} frames in {time.monotonic() - begin_s:.0f} s: '
                f'{seen[-1] / 2**20:.2f} MiB',
                flush=True,
            )
    return resident_bytes() / seen[0] - 1


@pytest.mark.slow
def test_memory_of_the_node_is_flat(ros):
    """Over DDS, every output subscribed, sizes and calibrations that change, some bad frames."""
    rig = Rig('raw')

    def step(index: int) -> None:
        size = (SIZE, SMALL)[index // 100 % 2]
        if index % 100 == 0:
            info = make_info(size, fx=40.0 + index % 7)
            info.header.stamp.sec = index
            rig.send_info(info)
        bad = index % 50 == 49
        fate = rig.send(make_image('nv21' if bad else 'bgr8', size=size, stamp_ns=index))
        assert fate == ('rejected' if bad else 'processed')

    assert growth(step, FRAMES) <= GROWTH
    assert rig.counts.received == FRAMES
    assert rig.counts.rejected == FRAMES // 50
    rig.close()


class Nowhere:
    """A sink that looks at every message and keeps none."""

    def wanted(self, topic: str) -> bool:
        return True

    def publish(self, topic: str, message: object) -> None:
        assert message is not None

    @contextmanager
    def beside(self, work: Callable[[], None]) -> Iterator[None]:
        work()
        yield

    def close(self) -> None:
        pass


@pytest.mark.slow
def test_memory_of_the_engine_is_flat():
    """The real engine with every output, at two image sizes in turn; a hundredth of the frames."""
    engine = Engine(EngineConfig(preset='tag_slim', device='cpu', score_threshold=0.0))
    work = pipeline.Pipeline(engine, PerceptionConfig(), Nowhere())

    def step(index: int) -> None:
        size = (SIZE, SMALL)[index % 2]
        image: Image = make_image(size=size, stamp_ns=index)
        work(image, make_info(size))

    assert growth(step, max(FRAMES // 100, 50)) <= GROWTH
