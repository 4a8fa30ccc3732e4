from contextlib import contextmanager

import numpy as np
import pytest
import torch
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import Image

from tag_perception.ros import wire
from tag_perception.ros.constant import DEPTH_M, ConstantEngine
from tag_perception.ros.parameters import PerceptionConfig
from tag_perception.ros.pipeline import Pipeline
from tag_perception.ros.stages import Stages
from tag_perception.runtime.engine import Engine, EngineConfig

from .fakes import FakeEngine, FakeGpu, make_image, make_info

SIZE = (24, 32)


class Kept:
    """A sink that keeps a copy of every image."""

    def __init__(self) -> None:
        self.images: dict[str, Image] = {}

    def wanted(self, topic):
        return True

    def publish(self, topic, message):
        if isinstance(message, wire.ImageMessage):
            self.images[topic] = deserialize_message(message.memory.tobytes(), Image)

    @contextmanager
    def beside(self, work):
        work()
        yield

    def close(self):
        pass


@pytest.fixture
def copied(monkeypatch):
    """Sizes in bytes of what was copied into messages."""
    sizes, copy = [], np.copyto
    monkeypatch.setattr(
        wire.np, 'copyto', lambda to, what: sizes.append(to.nbytes) or copy(to, what)
    )
    return sizes


def depth_of(image: Image) -> np.ndarray:
    return np.frombuffer(image.data, np.float32).reshape(image.height, image.width)


def test_a_depth_that_the_engine_put_into_the_message_is_not_copied(copied):
    engine = Engine(EngineConfig(device='cpu', backend='torch', score_threshold=0.0))
    sink = Kept()
    work = Pipeline(engine, PerceptionConfig(), sink)
    for number, size in enumerate((SIZE, SIZE, (30, 40))):
        image = make_image(size=size, stamp_ns=number)
        work(image, make_info(size))
        pixels = np.frombuffer(image.data, np.uint8).reshape(*size, 3)[..., ::-1]
        expected = engine(np.ascontiguousarray(pixels), None).depth
        message = sink.images['depth/image']
        assert message.header == image.header
        np.testing.assert_array_equal(depth_of(message), expected.numpy())
        colors = sink.images['depth/color']  # drawn from the same memory
        assert np.any(colors.data)
    assert 4 * SIZE[0] * SIZE[1] not in copied
    assert SIZE[0] * SIZE[1] in copied  # the mask is


def test_a_depth_elsewhere_is_copied(copied):
    sink = Kept()
    Pipeline(FakeEngine(), PerceptionConfig(), sink)(make_image(size=SIZE), make_info(SIZE))
    assert 4 * SIZE[0] * SIZE[1] in copied
    assert np.isnan(depth_of(sink.images['depth/image'])[0]).all()


def test_only_an_engine_on_the_cpu_is_offered_memory_in_a_message(copied):
    for engine in (FakeEngine(), FakeGpu()):
        sink = Kept()
        work = Pipeline(engine, PerceptionConfig(), sink)
        work(make_image(size=SIZE), make_info(SIZE))
        kept = bytes(work._images['depth/image'].memory)
        work.prepare(make_image(size=SIZE, stamp_ns=7), make_info(SIZE), Stages())
        touched = kept != bytes(work._images['depth/image'].memory)
        assert engine.offered == [touched] == [not engine.status.on_gpu]


def test_the_constant_engine_says_the_same_wherever_its_depth_is_to_lie():
    engine = ConstantEngine(EngineConfig())
    pictures = [np.zeros((6, 8, 3), np.uint8)] * 2
    places = [np.zeros((6, 8), np.float32) for _ in pictures]
    for _ in range(2):
        for scene, place in zip(engine.batch(pictures, [None] * 2, places), places, strict=True):
            assert scene.depth.data_ptr() == place.ctypes.data
            assert torch.equal(scene.depth, engine.batch(pictures, [None] * 2)[0].depth)
            assert (place == DEPTH_M).all()
