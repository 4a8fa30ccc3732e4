"""Accuracy over the wire: what survives the messages scores as it does on disk."""

from __future__ import annotations

import json
import math
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip('rclpy')
pytest.importorskip('cityscapesscripts')

import rclpy
from rclpy.parameter import Parameter

from tag_perception import cli
from tag_perception.config import InputError
from tag_perception.core.structures import Scene
from tag_perception.data.cityscapes3d import Cityscapes3D
from tag_perception.data.recording import open_recording
from tag_perception.evaluate.evaluation import evaluate, scene_from_labels
from tag_perception.ros.bag import make_bag, process_bag
from tag_perception.ros.node import PerceptionNode
from tag_perception.ros.parameters import PerceptionConfig
from tag_perception.ros.player import Playback, play_bag
from tag_perception.ros.process import Stop
from tag_perception.ros.recorder import record_bag
from tag_perception.ros.results import Recording

from .fakes import FakeEngine

HEADLINE = ('miou', 'rmse_m', 'rmse_disp_px', 'mds_amodal', 'mds_modal', 'car_ds_amodal')


def answering(predict) -> FakeEngine:
    """An engine that says what `predict` says."""

    class Engine(FakeEngine):
        def __call__(self, image, camera):
            return predict(image, camera)

    return Engine()


class Flawed:
    """A network that errs in every task by a known amount; knows its images by heart."""

    def __init__(self, dataset: Cityscapes3D) -> None:
        self.scenes = {sample.image.tobytes(): self.spoil(sample) for sample in dataset}

    def __call__(self, image: np.ndarray, camera) -> Scene:
        return self.scenes[np.ascontiguousarray(image).tobytes()]

    @staticmethod
    def spoil(sample) -> Scene:
        scene = scene_from_labels(sample)
        boxes = scene.detection3d
        scores = torch.linspace(0.05, 0.95, len(boxes))
        boxes = replace(boxes, center_cam=boxes.center_cam * 1.02 + 0.1, score=scores)
        semantic = scene.semantic.clone()
        semantic[::7] = 2
        return Scene(semantic, (scene.depth * 1.07).nan_to_num(90.0), boxes)


@pytest.fixture(scope='module')
def drive(tmp_path_factory, write_tree):
    """A labelled tree, its bag, and the results of a flawed network for it."""
    root = write_tree(tmp_path_factory.mktemp('tree'), frames=3)
    folder = tmp_path_factory.mktemp('bags')
    dataset = Cityscapes3D(root, 'val')
    predict = Flawed(dataset)
    make_bag(open_recording(root)[1], folder / 'in.mcap')
    config = PerceptionConfig()
    config = replace(config, engine=replace(config.engine, score_threshold=0.0))
    process_bag(folder / 'in.mcap', folder / 'out.mcap', answering(predict), config)
    return dataset, predict, folder


def close(a: object, b: object) -> bool:
    """Equal up to the last digits of a float32, in every number of two results."""
    if isinstance(a, dict):
        return set(a) == set(b) and all(close(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(close, a, b))
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=1e-5, abs_tol=1e-7)
    return a == b


def test_scores_over_the_wire_equal_those_on_disk(drive, tmp_path, capsys):
    dataset, predict, bags = drive
    offline = evaluate(predict, dataset, tmp_path / 'offline')
    arguments = [bags / 'out.mcap', '--ground-truth', bags / 'in.mcap', '--out', tmp_path / 'wire']
    assert cli.main(['evaluate-bag', *map(str, arguments)]) == 0
    wire = json.loads((tmp_path / 'wire' / 'results.json').read_text())
    for task in ('semantic', 'depth', 'detection3d'):
        assert offline[task], task
        assert close(wire[task], offline[task]), task
    for key in HEADLINE:
        assert offline[key] > 0
        assert wire[key] == pytest.approx(offline[key], rel=1e-6)
    printed = capsys.readouterr().out
    assert f'{offline["miou"]:.4f}' in printed
    assert '3 frames' in printed


def test_scores_of_a_recorded_node_equal_those_on_disk(drive, tmp_path, ros, spin_until):
    """Player, node and recorder as in a replay: every number crosses DDS twice."""
    dataset, predict, bags = drive
    node = PerceptionNode(
        lambda config: answering(predict),
        parameter_overrides=[Parameter('engine.score_threshold', value=0.0)],
    )
    node.autostart()
    recorder, player = rclpy.create_node('recorder'), rclpy.create_node('player')
    ready, stop = threading.Event(), Stop()
    recording = threading.Thread(
        target=record_bag,
        args=(tmp_path / 'out.mcap', recorder),
        kwargs={'on_ready': lambda topics: ready.set(), 'stop': stop},
    )
    recording.start()
    spin_until(ready.is_set, node)
    playing = threading.Thread(
        target=play_bag, args=(bags / 'in.mcap', player, Playback(lockstep='/perception'))
    )
    playing.start()
    spin_until(lambda: not playing.is_alive(), node)
    stop.set()
    recording.join()
    for each in (node.close, recorder.destroy_node, player.destroy_node):
        each()

    arguments = ['--ground-truth', bags / 'in.mcap', '--out', tmp_path / 'wire']
    assert cli.main(['evaluate-bag', *map(str, [tmp_path / 'out.mcap', *arguments])]) == 0
    wire = json.loads((tmp_path / 'wire' / 'results.json').read_text())
    offline = evaluate(predict, dataset, tmp_path / 'offline')
    for task in ('semantic', 'depth', 'detection3d'):
        assert offline[task], task
        assert close(wire[task], offline[task]), task


def test_frames_come_back_as_they_were(drive):
    dataset, predict, bags = drive
    recording = Recording(bags / 'out.mcap', bags / 'in.mcap')
    for recorded, sample in zip(recording, dataset, strict=True):
        source = recorded.source
        np.testing.assert_array_equal(source.image, sample.image)
        assert source.camera.baseline_m == pytest.approx(sample.camera.baseline_m)
        np.testing.assert_allclose(
            source.camera.camera_T_vehicle, sample.camera.camera_T_vehicle, atol=1e-12
        )
        expected = predict(sample.image, sample.camera)
        torch.testing.assert_close(recorded.scene.depth, expected.depth, equal_nan=True)
        for name in ('center_cam', 'rotation_cam', 'box_2d_px', 'score', 'class_id'):
            found = getattr(recorded.scene.detection3d, name)
            torch.testing.assert_close(found, getattr(expected.detection3d, name))
        assert recorded.latency_ms['total'] > 0
    assert (recording.missing, recording.score_threshold) == (0, 0.0)


def test_missing_results_are_counted(drive, tmp_path):
    dataset, _, _ = drive
    make_bag(open_recording(dataset.root)[1], tmp_path / 'long.mcap')
    short = tmp_path / 'short.mcap'
    make_bag(open_recording(dataset.root, limit=2)[1], tmp_path / 'two.mcap')
    process_bag(tmp_path / 'two.mcap', short, FakeEngine())
    recording = Recording(short, tmp_path / 'long.mcap')
    assert len(list(recording)) == 2
    assert recording.missing == 1


def test_wrong_bags_are_named(drive, tmp_path):
    _, _, bags = drive
    with pytest.raises(InputError, match='no results of /perception'):
        list(Recording(bags / 'in.mcap'))
    with pytest.raises(InputError, match='one topic of camera images is needed, there is none'):
        list(Recording(bags / 'out.mcap'))
    assert cli.main(['evaluate-bag', str(bags / 'in.mcap'), '--out', str(tmp_path)]) == 2


def test_unlabelled_frames_cannot_be_scored(drive, tmp_path, capsys):
    from tag_perception.data.recording import StampedFrame

    dataset, _, _ = drive
    frames = [StampedFrame(10**18, dataset[0].image, dataset[0].camera)]
    make_bag(frames, tmp_path / 'in.mcap')
    process_bag(tmp_path / 'in.mcap', tmp_path / 'out.mcap', FakeEngine())
    arguments = [tmp_path / 'out.mcap', '--ground-truth', tmp_path / 'in.mcap']
    assert cli.main(['evaluate-bag', *map(str, arguments), '--out', str(tmp_path / 'o')]) == 2
    assert 'the ground truth has no labels' in capsys.readouterr().err
    assert not (tmp_path / 'o').exists()
