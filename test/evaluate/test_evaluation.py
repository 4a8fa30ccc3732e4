import json
import shutil
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from tag_perception.config import InputError
from tag_perception.core.structures import Objects3D, Scene
from tag_perception.data.cityscapes3d import Cityscapes3D
from tag_perception.evaluate.evaluation import Evaluation, evaluate, scene_from_labels

HEADLINE = (
    'miou', 'rmse_m', 'rmse_disp_px', 'mds_amodal', 'mds_modal', 'car_ds_amodal', 'car_ds_modal',
)  # fmt: skip


@pytest.fixture
def tree(write_tree, tmp_path):
    return write_tree(tmp_path / 'tree', frames=3)


def oracle(dataset):
    """predict(image, camera) that knows the labels of every image that it is shown."""
    scenes = {}
    for _, sample in dataset.samples(broken=[]):
        scenes[sample.image.tobytes()] = scene_from_labels(sample)
    return lambda image, camera: scenes[image.tobytes()]


def strictly(path):
    """JSON without NaN and Infinity."""

    def refuse(constant):
        raise AssertionError(f'{constant} in {path}')

    return json.loads(path.read_text(), parse_constant=refuse)


def test_perfect_predictions_score_perfectly(tree, tmp_path):
    dataset = Cityscapes3D(tree, 'val')
    results = evaluate(oracle(dataset), dataset, tmp_path / 'out', about={'name': 'oracle'})
    assert results == strictly(tmp_path / 'out/results.json')
    assert results['name'] == 'oracle'
    assert results['fps'] == pytest.approx(1e3 / results['predict_ms'])
    for key in ('miou', 'mds_amodal', 'mds_modal', 'car_ds_amodal', 'car_ds_modal'):
        assert results[key] == pytest.approx(1, abs=1e-6), key
    for key in ('rmse_m', 'rmse_disp_px', 'pitch_error_rad', 'roll_error_rad'):
        assert results[key] == pytest.approx(0, abs=1e-6), key
    assert all(row['rating'] == 1 for row in results['frames'])
    files = sorted(path.name for path in (tmp_path / 'out/detections').iterdir())
    assert files == [f'{name}_predBbox3d.json' for name in dataset.names]


def test_no_scene_outlives_its_turn(tree, tmp_path):
    dataset = Cityscapes3D(tree, 'val')
    known, alive = oracle(dataset), []

    def predict(image, camera):
        assert not any(reference() is not None for reference in alive[:-2])  # the last may be
        scene = known(image, camera)
        scene = Scene(scene.semantic.clone(), scene.depth.clone(), scene.detection3d)
        alive.extend(weakref.ref(value) for value in (scene.semantic, scene.depth))
        return scene

    evaluate(predict, dataset, tmp_path / 'out')
    assert len(alive) == 6


def test_a_worse_frame_is_rated_lower(tree, tmp_path):
    dataset = Cityscapes3D(tree, 'val')
    known = oracle(dataset)
    bad = dataset[1].image.tobytes()

    def predict(image, camera):
        scene = known(image, camera)
        if image.tobytes() != bad:
            return scene
        return Scene(torch.zeros_like(scene.semantic), scene.depth * 2, scene.detection3d[:2])

    rows = evaluate(predict, dataset, tmp_path)['frames']
    assert [row['name'] for row in rows] == dataset.names
    assert rows[0]['rating'] == rows[2]['rating'] == 1
    assert rows[1]['rating'] < 0.5
    assert (rows[1]['hits'], rows[1]['missed']) == (2, 4)


def test_limit_and_broken_frames(tree, tmp_path):
    dataset = Cityscapes3D(tree, 'val')
    predict = oracle(dataset)
    assert evaluate(predict, dataset, tmp_path, limit=2)['scored_frames']['all'] == 2
    broken = dataset.frames[1].path('detection3d')
    broken.write_text('{')
    with pytest.raises(InputError, match='--skip-broken goes on') as caught:
        evaluate(predict, dataset, tmp_path)
    assert str(broken) in str(caught.value)
    results = evaluate(predict, dataset, tmp_path, skip_broken=True)
    assert [row['name'] for row in results['frames']] == [dataset.names[0], dataset.names[2]]
    assert len(results['broken']) == 1
    assert results['mds_amodal'] == pytest.approx(1, abs=1e-6)


def test_nothing_to_score_is_an_error(tree, tmp_path):
    dataset = Cityscapes3D(tree, 'val')
    for frame in dataset.frames:
        frame.path('camera').unlink()
    with pytest.raises(InputError, match='no frame of val could be scored'):
        evaluate(lambda image, camera: None, dataset, tmp_path, skip_broken=True)


def test_labels_without_content_are_scored_without_nan(tree, tmp_path):
    dataset = Cityscapes3D(tree, 'val')
    void, dark = np.zeros((128, 256), np.uint8), np.zeros((128, 256), np.uint16)
    for frame in dataset.frames:
        Image.fromarray(void).save(frame.path('semantic'))
        Image.fromarray(dark).save(frame.path('depth'))
        document = json.loads(frame.path('detection3d').read_text())
        frame.path('detection3d').write_text(json.dumps(document | {'objects': [], 'ignore': []}))

    def predict(image, camera):
        return Scene(torch.zeros(128, 256).byte(), torch.ones(128, 256), Objects3D.empty())

    results = evaluate(predict, dataset, tmp_path / 'out')
    strictly(tmp_path / 'out/results.json')
    assert all(results[key] is None for key in HEADLINE)
    assert results['scored_frames'] == {'all': 3, 'semantic': 3, 'depth': 3, 'detection3d': 3}
    assert all(row['rating'] is None for row in results['frames'])


def test_unlabelled_frames_and_absent_tasks_are_passed_over(tree, tmp_path):
    dataset = Cityscapes3D(tree, 'val')
    shutil.rmtree(tree / 'gtFine')
    dataset.frames[0].path('depth').unlink()
    dataset.frames[1].path('detection3d').unlink()
    known = oracle(dataset)
    results = evaluate(
        lambda image, camera: replace(known(image, camera), detection3d=None), dataset, tmp_path
    )
    assert results['scored_frames'] == {'all': 3, 'semantic': 0, 'depth': 2, 'detection3d': 0}
    assert results['rmse_m'] == 0
    assert results['semantic'] is results['detection3d'] is results['mds_amodal'] is None


def test_scenes_may_come_from_elsewhere(tree, tmp_path):
    evaluation = Evaluation(tmp_path)
    for frame, sample in Cityscapes3D(tree, 'val').samples(limit=2):
        evaluation.add(frame.path('detection3d'), sample, scene_from_labels(sample))
    results = evaluation.results()
    assert results['miou'] == 1
    assert results['scored_frames']['detection3d'] == 2
