"""A fake engine and messages; as a script, processes with that engine.

python fakes.py node [--ros-args …]        a perception node
python fakes.py process-bag IN OUT         process-bag
python fakes.py camera HZ [--ros-args …]   images and calibrations, until it is ended
HANG=configure|frame|publish|nothing       where the node stops and never comes back
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Sequence

import numpy as np
import torch
from sensor_msgs.msg import CameraInfo, Image

from tag_perception.config import InputError
from tag_perception.core.geometry import quaternion_from_euler
from tag_perception.core.network import NetworkConfig
from tag_perception.core.structures import Camera, Objects3D, Scene
from tag_perception.ros import process
from tag_perception.runtime.engine import EngineConfig, EngineStatus
from tag_perception.runtime.runner import MapMemory

TIMEOUT_S = 60.0
"""Nothing takes this long, not even on a busy machine."""


class FakeEngine:
    """Answers at once with values that depend on every pixel; may be told to wait or to fail."""

    largest_batch = 8
    device = 'cpu'

    def __init__(self, config: EngineConfig | None = None) -> None:
        if config is not None and config.checkpoint == 'missing':
            raise InputError('checkpoint missing: no such file')
        self.stages_ms = {'network': 1.0}
        self.problem: str | None = None
        self.rebuilds = 0
        self.go = threading.Event()
        self.go.set()
        self.images: list[np.ndarray] = []
        self.cameras: list[Camera | None] = []
        self.prepared_for = 1
        self.batches: list[int] = []
        self.offered: list[bool] = []
        """Of each batch: whether it was given memory for the maps."""
        self.status = EngineStatus(
            device=self.device,
            device_name='a fake',
            precision='fp32',
            checkpoint='UNTRAINED tag_slim',
            trained=False,
            network=NetworkConfig(),
            fallback=None,
            largest_batch=self.largest_batch,
        )

    def prepare(self, together: int) -> None:
        self.prepared_for = together

    def batch(
        self,
        images: Sequence[np.ndarray],
        cameras: Sequence[Camera | None],
        memory: Sequence[MapMemory] | None = None,
    ) -> list[Scene]:
        self.batches.append(len(images))
        self.offered.append(memory is not None)
        return [self(*pair) for pair in zip(images, cameras, strict=True)]

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


class FakeGpu(FakeEngine):
    """Says that it leaves the cores of the CPU alone."""

    device = 'cuda:0'


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


class HangingEngine(FakeEngine):
    """Hangs for good where the environment says so."""

    def __init__(self, config: EngineConfig | None = None) -> None:
        super().__init__(config)
        self._hang('configure')

    def __call__(self, image: np.ndarray, camera: Camera | None) -> Scene:
        self._hang('frame')
        return super().__call__(image, camera)

    def _hang(self, place: str) -> None:
        if os.environ.get('HANG') == place:
            hang(place)


def hang(place: str) -> None:
    """Say so, and never come back."""
    print(f'hanging in {place}', flush=True)
    time.sleep(1000)


def play_camera(stop: process.Stop, rate_hz: str, *arguments: str) -> int:
    """Publish until `stop`; stamped with the system clock."""
    from tag_perception.ros import session

    with session.client('camera', ['camera', *arguments]) as node:
        images = node.create_publisher(Image, 'image', 1)
        infos = node.create_publisher(CameraInfo, 'camera_info', 1)
        while not stop.wait(1 / float(rate_hz)):
            infos.publish(make_info())
            images.publish(make_image(stamp_ns=time.time_ns()))
    return 0


def main(command: str, *arguments: str) -> int:
    def work(stop: process.Stop) -> int:
        from tag_perception.ros import bag, node, outputs, session

        if os.environ.get('HANG') == 'publish':
            HangingEngine.device = FakeGpu.device
            outputs.Publishers.publish = lambda *_: hang('publish')
        if command == 'node':
            return session.serve(
                lambda: node.PerceptionNode(HangingEngine), stop, ['fakes', *arguments]
            )
        if command == 'camera':
            return play_camera(stop, *arguments)
        source, output = arguments
        print(bag.process_bag(source, output, HangingEngine(), stop=stop))
        return 0

    return process.run(work, leave=True)


if __name__ == '__main__':
    sys.exit(main(*sys.argv[1:]))
