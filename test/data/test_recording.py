from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tag_perception.config import InputError
from tag_perception.data.recording import START_NS, open_recording

PERIOD_NS = round(1e9 / 17)


def write_images(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for index, name in enumerate(names):
        Image.fromarray(np.full((6, 8, 3), index, np.uint8)).save(folder / name)
    return folder


def write_camera(path: Path, fx: float) -> None:
    extrinsic = {'baseline': 0.2, 'pitch': 0, 'roll': 0, 'yaw': 0, 'x': 1, 'y': 0, 'z': 1}
    intrinsic = {'fx': fx, 'fy': fx, 'u0': 4, 'v0': 3}
    path.write_text(json.dumps({'extrinsic': extrinsic, 'intrinsic': intrinsic}))


def test_a_tree_gives_frames_with_labels_and_the_times_of_its_timestamps(tmp_path, write_tree):
    count, frames = open_recording(write_tree(tmp_path, frames=3, size=(64, 128)))
    found = list(frames)
    assert count == len(found) == 3
    steps = np.diff([frame.stamp_ns for frame in found])
    np.testing.assert_allclose(steps, PERIOD_NS, atol=1)
    for frame in found:
        assert frame.image.shape == (64, 128, 3)
        assert frame.camera.width == 128
        assert frame.semantic.shape == frame.depth.shape == (64, 128)
        assert len(frame.detection3d) == 6
        assert frame.ignore_px.shape == (1, 4)


def test_another_sequence_follows_after_one_period(tmp_path, write_tree):
    write_tree(tmp_path, frames=2, size=(64, 128), seed=0)
    write_tree(tmp_path, frames=2, size=(64, 128), seed=1)
    _, frames = open_recording(tmp_path)
    steps = np.diff([frame.stamp_ns for frame in frames])
    np.testing.assert_allclose(steps, PERIOD_NS, atol=1)


def test_split_and_limit_select(tmp_path, write_tree):
    write_tree(tmp_path, split='train', frames=2, size=(64, 128))
    write_tree(tmp_path, split='val', frames=3, size=(64, 128))
    assert open_recording(tmp_path)[0] == 5
    assert open_recording(tmp_path, split='val')[0] == 3
    assert len(list(open_recording(tmp_path, limit=2)[1])) == 2
    with pytest.raises(InputError, match="no images of split 'test'; splits there: train, val"):
        open_recording(tmp_path, split='test')


def test_the_video_of_a_tree_comes_before_its_single_images(tmp_path):
    for kind, number in (('leftImg8bit', 19), ('leftImg8bit_sequence', 18)):
        folder = tmp_path / kind / 'val' / 'here'
        write_images(folder, f'here_000000_0000{number}_leftImg8bit.png')
    (tmp_path / 'camera' / 'val' / 'here').mkdir(parents=True)
    write_camera(tmp_path / 'camera/val/here/here_000000_000019_camera.json', 50)
    ((frame,)) = open_recording(tmp_path)[1]
    assert frame.camera.fx == 50  # that of the annotated frame, one later
    assert frame.semantic is None


def test_a_folder_of_images_has_no_labels_and_an_even_rate(tmp_path):
    folder = write_images(tmp_path, 'b.png', 'a.jpg', 'c.JPEG')
    (folder / 'notes.txt').write_text('no image')
    count, frames = open_recording(folder, hz=25)
    found = list(frames)
    assert count == 3
    assert [frame.stamp_ns - START_NS for frame in found] == [0, 40_000_000, 80_000_000]
    assert [int(frame.image[0, 0, 0]) for frame in found] == [1, 0, 2]  # by name
    assert all(frame.camera is None and frame.semantic is None for frame in found)


def test_calibration_of_a_folder(tmp_path):
    names = 'x_000000_000001_leftImg8bit.png', 'x_000000_000002_leftImg8bit.png'
    folder = write_images(tmp_path / 'images', *names)
    write_images(folder, 'x_000000_000001_disparity.png')  # not meant
    write_camera(folder / 'x_000000_000001_camera.json', 10)
    write_camera(tmp_path / 'mine.json', 30)
    first, second = open_recording(folder)[1]
    assert (first.camera.fx, second.camera) == (10, None)
    write_camera(folder / 'camera.json', 20)
    assert [frame.camera.fx for frame in open_recording(folder)[1]] == [10, 20]
    given = open_recording(folder, camera=tmp_path / 'mine.json')[1]
    assert [frame.camera.fx for frame in given] == [30, 30]


def test_nothing_to_read_is_said(tmp_path):
    with pytest.raises(InputError, match='no such folder'):
        open_recording(tmp_path / 'missing')
    with pytest.raises(InputError, match='no images'):
        open_recording(tmp_path)
    with pytest.raises(InputError, match='0 is no frame rate'):
        open_recording(write_images(tmp_path, 'a.png'), hz=0)
