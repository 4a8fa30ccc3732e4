from __future__ import annotations

import cv2
import numpy as np
import pytest
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo
from vision_msgs.msg import Detection3DArray

from tag_perception.config import InputError
from tag_perception.core.structures import Camera, Objects3D
from tag_perception.ros.bag import make_bag, process_bag
from tag_perception.ros.film import SHORTEST_S, draw_film
from tag_perception.ros.messages import to_detections, to_scene
from tag_perception.ros.process import Stop
from tag_perception.ros.results import Recording
from tag_perception.ros.storage import BagReader, BagWriter

from .fakes import FakeEngine, golden_boxes
from .test_bag import Labelled

CAMERA = Camera(64, 32, 35.0, 35.5, 31.0, 16.0)
STEP_NS = 10**9 // 17
START_NS = 10**18


@pytest.fixture
def bags(tmp_path):
    """Twelve frames whose brightness tells their number, and what a network said about them."""
    frames = [
        Labelled(START_NS + i * STEP_NS, np.full((32, 64, 3), 20 * i, np.uint8), CAMERA)
        for i in range(12)
    ]
    make_bag(frames, tmp_path / 'input.mcap')
    process_bag(tmp_path / 'input.mcap', tmp_path / 'output.mcap', FakeEngine())
    return tmp_path


def draw(folder, **options):
    recording = Recording(folder / 'output.mcap', folder / 'input.mcap')
    return draw_film(recording, folder / 'film.mp4', folder / 'still.png', **options)


def frames_of(path):
    video, frames = cv2.VideoCapture(str(path)), []
    while (got := video.read())[0]:
        frames.append(got[1])
    return frames, video.get(cv2.CAP_PROP_FPS)


def test_every_frame_is_in_the_film_in_order(bags):
    assert draw(bags) == 12
    frames, rate_hz = frames_of(bags / 'film.mp4')
    assert len(frames) == 12
    assert rate_hz == pytest.approx(12 / SHORTEST_S, abs=0.01)
    still = cv2.imread(str(bags / 'still.png'))
    assert still.shape == frames[0].shape == (56 + 512, 3 * 1024, 3)
    brightness = [frame[-20:, :20].mean() for frame in frames]
    assert brightness == pytest.approx([20 * i for i in range(12)], abs=4)
    assert still[-20:, :20].mean() == pytest.approx(20 * 6)  # the middle one


def test_frames_without_results_are_left_out(bags):
    kept = bags / 'kept.mcap'
    lost = {START_NS + i * STEP_NS for i in (0, 5, 11)}
    with BagReader(bags / 'output.mcap') as reader, BagWriter(kept) as writer:
        for topic, stamp_ns, data in reader.messages():
            if stamp_ns not in lost:
                writer.write_bytes(topic, reader.topics[topic], bytes(data), stamp_ns)
    (bags / 'output.mcap').unlink()
    kept.rename(bags / 'output.mcap')
    assert draw(bags) == 9
    frames, _ = frames_of(bags / 'film.mp4')
    brightness = [frame[-20:, :20].mean() for frame in frames]
    wanted = [20 * i for i in range(12) if i not in (0, 5, 11)]
    assert brightness == pytest.approx(wanted, abs=4)


def test_without_calibration_there_are_no_boxes_but_mask_and_depth(tmp_path):
    frames = [Labelled(START_NS, np.full((32, 64, 3), 90, np.uint8))]
    make_bag(frames, tmp_path / 'input.mcap')
    process_bag(tmp_path / 'input.mcap', tmp_path / 'output.mcap', FakeEngine())
    assert draw(tmp_path) == 1
    assert cv2.imread(str(tmp_path / 'still.png')).shape == (56 + 512, 3 * 1024, 3)


def test_a_bag_without_results_is_named(bags):
    (bags / 'output.mcap').unlink()
    with BagWriter(bags / 'output.mcap') as writer:
        writer.write('/other', CameraInfo(), START_NS)
    with pytest.raises(InputError, match=r'output\.mcap: no results of /perception'):
        draw(bags)
    assert not (bags / 'film.mp4').exists()
    assert not (bags / 'still.png').exists()


def test_it_ends_when_it_is_told_to(bags):
    stop = Stop()
    stop.set()
    assert draw(bags, stop=stop) == 0


def sent(boxes: Objects3D, ids: str) -> Detection3DArray:
    message = to_detections(CameraInfo().header, boxes, ids)
    return deserialize_message(message.memory.tobytes(), Detection3DArray)


@pytest.mark.parametrize('ids', ['name', 'id'])
def test_a_scene_comes_back_from_its_messages(ids):
    boxes = golden_boxes()
    back = to_scene(None, None, sent(boxes, ids)).detection3d
    for name in ('class_id', 'score', 'center_cam', 'size_lwh_m', 'depth_sigma_m'):
        np.testing.assert_allclose(getattr(back, name), getattr(boxes, name), atol=1e-5)
    turns = (back.rotation_cam * boxes.rotation_cam).sum(-1).abs()  # q and -q are one rotation
    np.testing.assert_allclose(turns, 1, atol=1e-6)
    assert len(to_scene(None, None, sent(Objects3D.empty(), ids)).detection3d) == 0
