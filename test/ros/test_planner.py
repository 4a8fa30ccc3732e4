"""examples/planner.py beside a bag: what it decides, and why."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from nav_msgs.msg import OccupancyGrid
from std_msgs.msg import String
from vision_msgs.msg import Detection3DArray

from tag_perception.core.structures import Camera, Objects3D, Scene
from tag_perception.data.recording import StampedFrame
from tag_perception.ros.bag import make_bag, process_bag
from tag_perception.ros.parameters import PerceptionConfig
from tag_perception.ros.storage import BagReader

from .fakes import FakeEngine

EXAMPLE = Path(__file__).parents[2] / 'examples' / 'planner.py'
SIZE = (128, 256)
HEIGHT_M, FORWARD_M = 1.3, 1.7


def camera() -> Camera:
    camera_T_vehicle = np.eye(4)
    camera_T_vehicle[:3, 3] = -FORWARD_M, 0.0, -HEIGHT_M
    return Camera(256, 128, 280.0, 280.0, 128.0, 60.0, camera_T_vehicle=camera_T_vehicle)


def scene(ahead_m: float | None, left_m: float = 0.0, wall_m: float | None = None) -> Scene:
    """A flat road, a car (or none) whose rear is ahead_m before base_link, a wall (or none)."""
    rows = torch.arange(128.0)[:, None].expand(SIZE)
    depth = HEIGHT_M * 280.0 / (rows - 60.0)
    semantic = torch.where(rows > 62, 0, 10).to(torch.uint8)
    depth = torch.where(rows > 62, depth, torch.nan)
    if wall_m is not None:
        z = wall_m - FORWARD_M
        hidden = (rows > 30) & ~(depth < z)
        depth, semantic = depth.masked_fill(hidden, z), semantic.masked_fill(hidden, 2)
    boxes = Objects3D.empty()
    if ahead_m is not None:
        reach = np.hypot(4.0, 1.8) / 2
        boxes = Objects3D(
            class_id=torch.tensor([0]),
            score=torch.tensor([0.9]),
            center_cam=torch.tensor([[ahead_m + reach - FORWARD_M, left_m, -0.5]]).float(),
            size_lwh_m=torch.tensor([[4.0, 1.8, 1.5]]),
            rotation_cam=torch.tensor([[1.0, 0.0, 0.0, 0.0]]),
            box_2d_px=torch.zeros(1, 4),
            depth_sigma_m=torch.zeros(1),
        )
    return Scene(semantic, depth, boxes)


DRIVE = [
    (scene(None), 'go: clear'),
    (scene(15.0), 'slow down: car 15.0 m ahead'),
    (scene(6.0), 'stop: car 6.0 m ahead'),
    (scene(6.0, left_m=4.0), 'go: clear'),
    (scene(None, wall_m=12.1), 'slow down: obstacle 12.0 m ahead'),
    (scene(None, wall_m=5.1), 'stop: obstacle 5.0 m ahead'),
]


@pytest.fixture
def planner(ros):
    spec = importlib.util.spec_from_file_location('planner', EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    node = module.Planner()
    yield node
    node.destroy_node()


def bag_of_drive(folder: Path) -> Path:
    """What the node publishes for DRIVE, in base_link."""

    class Engine(FakeEngine):
        def __call__(self, image, camera):
            return DRIVE[image[0, 0, 0]][0]

    pictures = [np.full((*SIZE, 3), i, np.uint8) for i in range(len(DRIVE))]
    frames = [
        StampedFrame(10**18 + i * 200_000_000, picture, camera())
        for i, picture in enumerate(pictures)
    ]
    make_bag(frames, folder / 'in.mcap')
    config = replace(PerceptionConfig(), target_frame='base_link')
    process_bag(folder / 'in.mcap', folder / 'out.mcap', Engine(), config, lazy=True)
    return folder / 'out.mcap'


def test_decisions_follow_a_replayed_bag(tmp_path, planner, client, spin_until):
    bag = bag_of_drive(tmp_path)
    decisions: list[str] = []
    client.create_subscription(String, 'decision', lambda m: decisions.append(m.data), 10)
    topics = {'/perception/detections': Detection3DArray, '/perception/obstacles': OccupancyGrid}
    publishers = {t: client.create_publisher(kind, t, 10) for t, kind in topics.items()}
    nodes = planner, client
    spin_until(lambda: planner.count_subscribers('decision'), *nodes)
    spin_until(lambda: all(p.get_subscription_count() for p in publishers.values()), *nodes)

    def driven() -> list[str]:
        return [text for text in decisions if not text.startswith('stop: no obstacles')]

    with BagReader(bag) as reader:
        for topic, _, data in reader.messages(topics):
            before = len(driven())
            seen = planner.objects
            publishers[topic].publish(bytes(data))
            if topic.endswith('obstacles'):
                spin_until(lambda n=before: len(driven()) > n, *nodes)
            else:
                spin_until(lambda seen=seen: planner.objects is not seen, *nodes)
    assert driven() == [expected for _, expected in DRIVE]


def test_silence_is_a_reason_to_stop(planner, client, spin_until):
    decisions: list[str] = []
    client.create_subscription(String, 'decision', lambda m: decisions.append(m.data), 10)
    spin_until(lambda: decisions, planner, client)
    assert decisions[0] == 'stop: no obstacles from perception for 0.5 s'


def test_it_ends_cleanly(start, client, spin_until):
    process = start(str(EXAMPLE), '--ros-args', '-p', 'stop_m:=6.0')
    decisions: list[String] = []
    client.create_subscription(String, 'decision', decisions.append, 10)
    spin_until(lambda: decisions, client)  # it is there as a whole
    process.end()


def test_the_example_stays_short():
    assert len(EXAMPLE.read_text().splitlines()) <= 60
