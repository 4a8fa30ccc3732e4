import json
import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from cityscapesscripts.helpers.box3dImageTransform import Box3dImageTransform
from cityscapesscripts.helpers.box3dImageTransform import Camera as OfficialCamera

from tag_perception.core import geometry
from tag_perception.core.labels import DETECTION_CLASSES
from tag_perception.core.structures import Objects3D
from tag_perception.data.cityscapes3d import Cityscapes3D
from tag_perception.evaluate.detection3d import MATCHINGS, DetectionScore


@pytest.fixture(scope='module')
def dataset(write_tree, tmp_path_factory):
    return Cityscapes3D(write_tree(tmp_path_factory.mktemp('tree'), frames=3), 'val')


@pytest.fixture
def score(tmp_path):
    return DetectionScore(tmp_path / 'detections')


def add_all(score, dataset, change=lambda objects: objects):
    for frame, sample in dataset.samples():
        truth = frame.path('detection3d')
        score.update(frame.name, change(sample.detection3d), sample.camera, truth)
    return score.results()


def noisy(objects, seed=0):
    random = torch.Generator().manual_seed(seed + int(objects.center_cam[0, 0] * 100))
    noise = lambda *shape: torch.randn(*shape, generator=random)  # noqa: E731
    count = len(objects)
    rotation = objects.rotation_cam + 0.05 * noise(count, 4)
    return replace(
        objects,
        center_cam=objects.center_cam * (1 + 0.02 * noise(count, 1)),
        size_lwh_m=objects.size_lwh_m * (1 + 0.1 * noise(count, 3)),
        rotation_cam=torch.nn.functional.normalize(rotation, dim=-1),
        box_2d_px=objects.box_2d_px + noise(count, 4),
        score=torch.rand(count, generator=random),
    )


def test_perfect_boxes_score_one(score, dataset):
    results = add_all(score, dataset)
    for matching in MATCHINGS:
        assert results[matching]['mean']['ds'] == pytest.approx(1, abs=1e-6)
        for name in DETECTION_CLASSES:
            assert results[matching]['classes'][name]['boxes'] == 3
            assert results[matching]['classes'][name]['ds'] == pytest.approx(1, abs=1e-6)
    assert results['matched']['boxes'] == 18
    assert results['matched']['mean']['center_m'] < 1e-5
    assert set(results['frames']) == set(dataset.names)
    assert all(x == {'hits': 6, 'false': 0, 'missed': 0} for x in results['frames'].values())


def test_equal_to_the_official_command_at_the_official_size(write_tree, tmp_path):
    root = write_tree(tmp_path / 'tree', frames=2, size=(1024, 2048))
    score = DetectionScore(tmp_path / 'detections')
    ours = add_all(score, Cityscapes3D(root, 'val'), noisy)
    for matching, option in zip(MATCHINGS, ([], ['--modal']), strict=True):
        out = tmp_path / matching
        command = [
            sys.executable, '-m', 'cityscapesscripts.evaluation.evalObjectDetection3d',
            '-gt', root / 'gtBbox3d/val', '-pred', score.folder,
            '--results-folder', out, '--noplot', *option,
        ]  # fmt: skip
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
        official = json.loads((out / 'results.json').read_text())
        assert 0.1 < official['mDetection_Score'] < 0.99
        assert ours[matching]['mean']['ds'] == pytest.approx(official['mDetection_Score'])
        for name in DETECTION_CLASSES:
            mine = ours[matching]['classes'][name]
            assert mine['ds'] == pytest.approx(official['Detection_Score'][name])
            assert mine['ap'] == pytest.approx(official['AP'][name]['auc'])
            assert mine['yaw'] == pytest.approx(official['OS_Yaw'][name]['auc'])


def test_boxes_cut_by_the_border_of_a_small_image_match_themselves(fresh_frame, score):
    frame, document = fresh_frame
    sensor = {k: v for k, v in document['sensor'].items() if k != 'baseline'}
    transform = Box3dImageTransform(OfficialCamera(**sensor, imgWidth=256, imgHeight=128))
    for box in document['objects']:
        three = box['3d']
        three['center'][1] = -0.42 * three['center'][0]  # half beyond the right border
        transform.initialize_box(three['dimensions'], three['rotation'], three['center'])
        x1, y1, x2, y2 = transform.get_amodal_box_2d()
        assert x2 == 255
        box['2d']['amodal'] = box['2d']['modal'] = [x1, y1, x2 - x1, y2 - y1]
    frame.path('detection3d').write_text(json.dumps(document))
    sample = Cityscapes3D(frame.root, 'val')[0]
    score.update(frame.name, sample.detection3d, sample.camera, frame.path('detection3d'))
    results = score.results()
    assert results['amodal']['mean']['ap'] == results['modal']['mean']['ap'] == 1


@pytest.fixture
def fresh_frame(write_tree, tmp_path):
    frame = Cityscapes3D(write_tree(tmp_path / 'tree', frames=1), 'val').frames[0]
    return frame, json.loads(frame.path('detection3d').read_text())


def test_tilts_are_measured_in_the_axes_of_the_box(score, dataset):
    def tilted(objects):
        tilt = torch.tensor([0.3, -0.02, 0.01]).repeat(len(objects), 1)
        turn = geometry.quaternion_from_euler(*tilt.unbind(-1))
        return replace(objects, rotation_cam=geometry.quaternion_multiply(
            objects.rotation_cam, turn
        ))  # fmt: skip

    results = add_all(score, dataset, tilted)
    mean = results['matched']['mean']
    assert results['matched']['boxes'] > 6
    assert mean['yaw_rad'] == pytest.approx(0.3, abs=1e-5)
    assert mean['pitch_rad'] == pytest.approx(0.02, abs=1e-5)
    assert mean['roll_rad'] == pytest.approx(0.01, abs=1e-5)


def test_a_level_box_has_the_error_that_is_reported_for_level_boxes(score, dataset):
    def level_in_vehicle(objects, camera):
        camera_R_vehicle = torch.tensor(camera.camera_T_vehicle[:3, :3])
        rotation = geometry.rotation_from_quaternion(objects.rotation_cam.double())
        psi = geometry.euler_from_rotation(camera_R_vehicle.T @ rotation)[0]
        level = geometry.rotation_from_euler(psi, 0 * psi, 0 * psi)
        return replace(
            objects, rotation_cam=geometry.quaternion_from_rotation(camera_R_vehicle @ level)
        )

    for frame, sample in dataset.samples():
        boxes = level_in_vehicle(sample.detection3d, sample.camera)
        score.update(frame.name, boxes, sample.camera, frame.path('detection3d'))
    mean = score.results()['matched']['mean']
    assert mean['pitch_rad'] > 0.005
    for tilt in ('pitch', 'roll'):
        assert mean[f'{tilt}_rad'] == pytest.approx(mean[f'level_{tilt}_rad'], abs=1e-6)


def test_a_single_range_bin_is_visible_because_the_official_rule_zeroes_it(fresh_frame, score):
    frame, _ = fresh_frame
    sample = Cityscapes3D(frame.root, 'val')[0]
    score.update(frame.name, sample.detection3d, sample.camera, frame.path('detection3d'))
    car = score.results()['amodal']['classes']['car']
    assert (car['ap'], car['range_bins'], car['ds']) == (1, 1, 0)


def test_classes_that_do_not_occur_have_no_score(fresh_frame, score):
    frame, document = fresh_frame
    document['objects'] = [box for box in document['objects'] if box['label'] == 'bus']
    frame.path('detection3d').write_text(json.dumps(document | {'ignore': []}))
    sample = Cityscapes3D(frame.root, 'val')[0]
    score.update(frame.name, Objects3D.empty(), sample.camera, frame.path('detection3d'))
    results = score.results()
    assert results['amodal']['classes']['car'] is None
    assert results['amodal']['classes']['bus']['ap'] == 0
    assert results['frames'][frame.name] == {'hits': 0, 'false': 0, 'missed': 1}
    assert np.isnan(results['matched']['mean']['pitch_rad'])


def test_no_box_anywhere_has_no_score_and_no_crash(fresh_frame, score):
    frame, document = fresh_frame
    frame.path('detection3d').write_text(json.dumps(document | {'objects': [], 'ignore': []}))
    sample = Cityscapes3D(frame.root, 'val')[0]
    score.update(frame.name, sample.detection3d, sample.camera, frame.path('detection3d'))
    results = score.results()
    assert all(np.isnan(value) for value in results['modal']['mean'].values())
    assert set(results['modal']['classes'].values()) == {None}


def test_false_alarms_of_a_hopeless_class_need_half_a_point_to_count(fresh_frame, score):
    frame, _ = fresh_frame
    sample = Cityscapes3D(frame.root, 'val')[0]
    objects = sample.detection3d
    far_off = replace(objects, center_cam=objects.center_cam + torch.tensor([20.0, 0, 0]))
    scores = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.6, 0.9])
    guess = replace(far_off, score=scores, box_2d_px=torch.tensor([[100.0, 5, 110, 9]] * 6))
    score.update(frame.name, guess, sample.camera, frame.path('detection3d'))
    results = score.results()
    assert results['frames'][frame.name] == {'hits': 0, 'false': 2, 'missed': 6}
    assert set(results['confidences'].values()) == {0.5}


def test_results_of_an_earlier_run_do_not_leak_into_this_one(tmp_path, dataset):
    folder = tmp_path / 'detections'
    add_all(DetectionScore(folder), dataset)
    score = DetectionScore(folder)
    assert not folder.exists()
    assert score.results() == {}


def test_the_official_tool_leaves_no_traces(dataset, tmp_path):
    program = f"""
import logging, sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from pathlib import Path
from tag_perception.data.cityscapes3d import Cityscapes3D
from tag_perception.evaluate.detection3d import DetectionScore
score = DetectionScore(Path('detections'))
for frame, sample in Cityscapes3D({str(dataset.root)!r}, 'val').samples():
    score.update(frame.name, sample.detection3d, sample.camera, frame.path('detection3d'))
score.results()
root = logging.getLogger()
print(root.handlers, root.level)
"""
    run = subprocess.run(
        [sys.executable, '-c', program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == f'[] {logging.WARNING}'
    assert run.stderr == ''
    assert [path.name for path in tmp_path.iterdir()] == ['detections']
