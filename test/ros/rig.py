"""A perception node that never waits, with a camera beside it, for thousands of frames."""

from __future__ import annotations

import gc
import resource
import time
from pathlib import Path

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from tag_perception.core.structures import Camera, Scene
from tag_perception.ros.node import PerceptionNode
from tag_perception.ros.outputs import OUTPUTS

from .fakes import TIMEOUT_S, FakeEngine


def resident_bytes() -> int:
    """Memory of this process."""
    gc.collect()
    return int(Path('/proc/self/statm').read_text().split()[1]) * resource.getpagesize()


class QuickEngine(FakeEngine):
    """Forgets what it saw, and takes `inference_s` for it."""

    inference_s = 0.0

    def __call__(self, image: np.ndarray, camera: Camera | None) -> Scene:
        time.sleep(self.inference_s)
        scene = super().__call__(image, camera)
        self.images.clear()
        self.cameras.clear()
        return scene


class Rig:
    """The node with every output subscribed, and a camera beside it."""

    def __init__(self, transport: str) -> None:
        overrides = [Parameter('image_transport', value=transport)]
        self.node = PerceptionNode(QuickEngine, namespace=transport, parameter_overrides=overrides)
        self.node.autostart()
        self.camera = rclpy.create_node('camera', namespace=transport)
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.executor.add_node(self.camera)
        self.depth = Image()
        self.sent = 0
        for output in OUTPUTS:
            take = self._keep if output.topic == 'depth/image' else lambda message: None
            topic = f'perception/{output.topic}'
            self.camera.create_subscription(output.type, topic, take, output.qos())
        self.images = self.camera.create_publisher(Image, 'image', 1)
        self.compressed = self.camera.create_publisher(CompressedImage, 'image/compressed', 1)
        self.infos = self.camera.create_publisher(CameraInfo, 'camera_info', 1)
        images = self.images if transport == 'raw' else self.compressed
        self.until(lambda: images.get_subscription_count() > 0)
        self.until(lambda: self.infos.get_subscription_count() > 0)
        self.until(lambda: self.camera.count_publishers('perception/depth/image') > 0)
        self.spin(0.3)  # until the node knows of the subscribers as well

    @property
    def counts(self):
        return self.node.channels[0].input.mailbox.counts

    def until(self, condition) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not condition():
            assert time.monotonic() < deadline, self.counts
            self.executor.spin_once(timeout_sec=0.002)

    def spin(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        self.until(lambda: time.monotonic() > deadline)

    def send_info(self, info: CameraInfo) -> None:
        before = self.node.channels[0].input.info
        self.infos.publish(info)
        self.until(lambda: self.node.channels[0].input.info is not before)

    def send(self, image) -> str:
        """What became of the one frame: processed or rejected."""
        before = self.counts
        (self.images if isinstance(image, Image) else self.compressed).publish(image)
        self.sent += 1
        self.until(lambda: self.counts.received > before.received and not self.counts.under_way)
        after = self.counts
        assert after.received == self.sent
        assert after.received == after.processed + after.superseded + after.rejected
        if after.rejected > before.rejected:
            return 'rejected'
        self.until(lambda: self.depth.header == image.header)
        return 'processed'

    def close(self) -> None:
        self.node.close()
        self.camera.destroy_node()
        self.executor.shutdown()

    def _keep(self, message: Image) -> None:
        self.depth = message
