from contextlib import contextmanager
from types import SimpleNamespace

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
from tag_perception.runtime.runner import MapMemory

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


class Copies(SimpleNamespace):
    """NumPy, with the sizes in bytes of what was copied."""

    sizes: list[int]

    def __getattr__(self, name):
        return getattr(np, name)

    def copyto(self, to, what):
        self.sizes.append(to.nbytes)
        np.copyto(to, what)


@pytest.fixture
def copied(monkeypatch):
    """Sizes in bytes of what was copied into messages."""
    numpy = Copies(sizes=[])
    monkeypatch.setattr(wire, 'np', numpy)
    return numpy.sizes


def depth_of(image: Image) -> np.ndarray:
    return np.frombuffer(image.data, np.float32).reshape(image.height, image.width)


def mask_of(image: Image) -> np.ndarray:
    return np.frombuffer(image.data, np.uint8).reshape(image.height, image.width)


def test_maps_that_the_engine_put_into_their_messages_are_not_copied(copied):
    engine = Engine(EngineConfig(device='cpu', backend='torch', score_threshold=0.0))
    sink = Kept()
    work = Pipeline(engine, PerceptionConfig(), sink)
    for number, size in enumerate((SIZE, SIZE, (30, 40))):
        image = make_image(size=size, stamp_ns=number)
        work(image, make_info(size))
        pixels = np.frombuffer(image.data, np.uint8).reshape(*size, 3)[..., ::-1]
        expected = engine(np.ascontiguousarray(pixels), None)
        mask, depth = sink.images['semantic/image'], sink.images['depth/image']
        assert mask.header == depth.header == image.header
        np.testing.assert_array_equal(mask_of(mask), expected.semantic.numpy())
        np.testing.assert_array_equal(depth_of(depth), expected.depth.numpy())
        assert np.any(sink.images['semantic/color'].data)  # drawn from the same memory
        assert np.any(sink.images['depth/color'].data)
    for height, width in (SIZE, (30, 40)):
        assert not {height * width, 4 * height * width} & set(copied)
        assert 3 * height * width in copied  # a drawing is


def test_maps_elsewhere_are_copied(copied):
    sink = Kept()
    Pipeline(FakeEngine(), PerceptionConfig(), sink)(make_image(size=SIZE), make_info(SIZE))
    assert {SIZE[0] * SIZE[1], 4 * SIZE[0] * SIZE[1]} <= set(copied)
    assert np.isnan(depth_of(sink.images['depth/image'])[0]).all()


def test_only_an_engine_on_the_cpu_is_offered_memory_in_a_message(copied):
    for engine in (FakeEngine(), FakeGpu()):
        sink = Kept()
        work = Pipeline(engine, PerceptionConfig(), sink)
        work(make_image(size=SIZE), make_info(SIZE))
        messages = [work._images[topic] for topic in ('semantic/image', 'depth/image')]
        kept = [bytes(message.memory) for message in messages]
        work.prepare(make_image(size=SIZE, stamp_ns=7), make_info(SIZE), Stages())
        touched = [bytes(m.memory) != k for m, k in zip(messages, kept, strict=True)]
        assert engine.offered == [touched[0]] == [touched[1]] == [not engine.status.on_gpu]


def test_the_constant_engine_says_the_same_wherever_its_maps_are_to_lie():
    engine = ConstantEngine(EngineConfig())
    pictures = [np.zeros((6, 8, 3), np.uint8)] * 2
    memory = [
        MapMemory(np.full((6, 8), 77, np.uint8), np.zeros((6, 8), np.float32)) for _ in pictures
    ]
    for _ in range(2):
        for scene, place in zip(engine.batch(pictures, [None] * 2, memory), memory, strict=True):
            assert scene.semantic.data_ptr() == place.semantic.ctypes.data
            assert scene.depth.data_ptr() == place.depth.ctypes.data
            elsewhere = engine.batch(pictures, [None] * 2)[0]
            assert torch.equal(scene.semantic, elsewhere.semantic)
            assert torch.equal(scene.depth, elsewhere.depth)
            assert (place.depth == DEPTH_M).all()
