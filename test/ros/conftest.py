"""A fake engine, messages and a spinner: what the ROS tests share."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import rclpy
import torch
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CameraInfo, Image

from tag_perception.config import InputError
from tag_perception.core.geometry import quaternion_from_euler
from tag_perception.core.network import NetworkConfig
from tag_perception.core.structures import Camera, Objects3D, Scene
from tag_perception.ros import transport
from tag_perception.runtime.engine import EngineConfig, EngineStatus

TIMEOUT_S = 30.0

# Own DDS domain and this machine only: other ROS processes must neither disturb nor be disturbed.
os.environ['ROS_DOMAIN_ID'] = str(10 + os.getpid() % 90)
os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'


class FakeEngine:
    """Answers at once with values that depend on every pixel; may be told to wait or to fail."""

    def __init__(self, config: EngineConfig | None = None) -> None:
        if config is not None and config.checkpoint == 'missing':
            raise InputError('checkpoint missing: no such file')
        self.stages_ms = {'network': 1.0}
        self.go = threading.Event()
        self.go.set()
        self.images: list[np.ndarray] = []
        self.cameras: list[Camera | None] = []
        self.status = EngineStatus(
            device='cpu',
            device_name='a fake',
            precision='fp32',
            checkpoint='UNTRAINED tag_slim',
            trained=False,
            network=NetworkConfig(),
            fallback=None,
        )

    def __call__(self, image: np.ndarray, camera: Camera | None) -> Scene:
        assert self.go.wait(TIMEOUT_S)
        self.images.append(image.copy())
        self.cameras.append(camera)
        if image[0, 0, 0] == 66:
            raise RuntimeError('the device is on fire')
        depth = torch.from_numpy(image.astype(np.float32).sum(2) / 8)
        depth[0] = float('nan')
        return Scene(
            semantic=torch.from_numpy((image[..., 0] % 19).copy()),
            depth=depth,
            detection3d=None if camera is None else golden_boxes(),
        )


def golden_boxes() -> Objects3D:
    """The dataset's golden box as a car, and once more as a bus whose distance is exact."""
    angles = (torch.tensor(value) for value in (0.4797143, -0.0235138, -0.0372331))
    return Objects3D(
        class_id=torch.tensor([0, 2]),
        score=torch.tensor([0.9, 0.4]),
        center_cam=torch.tensor([[32.14884, 5.57789, 0.57177]] * 2),
        size_lwh_m=torch.tensor([[4.3, 1.72, 1.53]] * 2),
        rotation_cam=quaternion_from_euler(*angles).repeat(2, 1),
        box_2d_px=torch.zeros(2, 4),
        depth_sigma_m=torch.tensor([2.0, 0.0]),
    )


def make_image(
    encoding: str = 'bgr8',
    size: tuple[int, int] = (24, 32),
    pixels: np.ndarray | None = None,
    padding: int = 0,
    stamp_ns: int = 12_000_000_034,
    frame_id: str = 'camera_optical_frame',
) -> Image:
    """An Image of `pixels` (or of noise) with `padding` bytes of junk behind each row."""
    height, width = size if pixels is None else pixels.shape[:2]
    if pixels is None:
        noise = np.random.default_rng(stamp_ns)
        pixels = noise.integers(0, 60, (height, width, 3), np.uint8)
    rows = np.ascontiguousarray(pixels).view(np.uint8).reshape(height, -1)
    rows = np.hstack((rows, np.full((height, padding), 170, np.uint8)))
    message = Image(height=height, width=width, encoding=encoding, step=rows.shape[1])
    message.header.frame_id = frame_id
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 10**9)
    message.data.frombytes(rows.tobytes())
    return message


def make_info(size: tuple[int, int] = (24, 32), fx: float = 40.0) -> CameraInfo:
    """CameraInfo without distortion."""
    height, width = size
    k = [fx, 0.0, width / 2, 0.0, 41.0, height / 2, 0.0, 0.0, 1.0]
    info = CameraInfo(height=height, width=width, distortion_model='plumb_bob', d=[0.0] * 5, k=k)
    info.header.frame_id = 'some_other_header'
    return info


@pytest.fixture(scope='session')
def ros() -> Iterator[None]:
    """rclpy, initialised once for all tests of this process."""
    transport.prepare()
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    yield
    rclpy.try_shutdown()


@pytest.fixture
def client(ros):
    """A node that talks to the one under test."""
    node = rclpy.create_node('client')
    yield node
    node.destroy_node()


@pytest.fixture
def spin_until(ros) -> Callable[..., None]:
    """`spin_until(condition, node, …)`: run the nodes' callbacks until the condition holds."""

    def spin(condition: Callable[[], bool], *nodes, timeout_s: float = TIMEOUT_S) -> None:
        executor = SingleThreadedExecutor()
        for node in nodes:
            executor.add_node(node)
        deadline = time.monotonic() + timeout_s
        try:
            while not condition():
                assert time.monotonic() < deadline, 'the condition never came true'
                executor.spin_once(timeout_sec=0.05)
        finally:
            for node in nodes:
                executor.remove_node(node)
            executor.shutdown()

    return spin
