import json
import shutil

import numpy as np
import pytest
from PIL import Image

from tag_perception.cli import main
from tag_perception.config import InputError
from tag_perception.data.check import check_dataset, format_counts
from tag_perception.data.cityscapes3d import Cityscapes3D
from tag_perception.data.street.tree import write_tree as write_streets


@pytest.fixture
def tree(write_tree, tmp_path):
    write_tree(tmp_path, frames=4)
    return write_tree(tmp_path, frames=2, split='train', seed=1)


def test_an_intact_tree_has_no_problem_and_is_counted(tree):
    check = check_dataset(tree)
    assert check.problems == []
    assert {name: count.frames for name, count in check.splits.items()} == {'val': 4, 'train': 2}
    assert dict(check.splits['val'].labelled) == {'semantic': 4, 'depth': 4, 'detection3d': 4}
    assert set(check.splits['val'].boxes.values()) == {4}
    assert check.splits['train'].ignored == 2
    assert check.splits['val'].pixels.sum() == 4 * 128 * 256
    lines = format_counts(check).splitlines()
    assert lines[1].split() == ['train', '2', '0', *['2'] * 9, '2']


def test_every_problem_is_listed(tree):
    frames = Cityscapes3D(tree, 'val').frames
    frames[0].path('camera').unlink()
    frames[1].path('detection3d').write_text('{"objects": [')
    calibration = json.loads(frames[2].path('camera').read_text())
    calibration['intrinsic']['fx'] += 5
    calibration['extrinsic']['z'] += 0.5
    frames[2].path('camera').write_text(json.dumps(calibration))
    Image.fromarray(np.zeros((10, 10), np.uint16)).save(frames[3].path('instances'))
    frames[2].path('timestamp').write_text('soon')
    train = Cityscapes3D(tree, 'train').frames
    train[0].image_path.unlink()
    shutil.copy(train[1].image_path, train[1].image_path.with_name('holiday_leftImg8bit.png'))
    problems = check_dataset(tree).problems
    expected = [
        f'{frames[0].path("camera")}: no such file',
        f'{frames[1].path("detection3d")}: not valid JSON',
        f'{frames[2].path("timestamp")}: content: expected an integer in ns',
        f'{frames[3].path("instances")}: size: 10×10, its image is 256×128',
        f'{train[1].image_path.with_name("holiday_leftImg8bit.png")}: name: expected',
        f'{train[0].path("camera")}: camera of no image',
        f'{train[0].path("semantic")}: semantic of no image',
        f'{train[0].path("detection3d")}: detection3d of no image',
    ]
    for start in expected:
        assert sum(problem.startswith(start) for problem in problems) == 1, start
    frames[2].path('timestamp').write_text('0')
    box_file = frames[2].path('detection3d')
    disagreements = [p for p in check_dataset(tree).problems if p.startswith(f'{box_file}: sen')]
    assert [p.split(': ')[1] for p in disagreements] == ['sensor.fx', 'sensor.sensor_T_ISO_8855']


def test_a_broken_file_that_thirty_frames_share_is_one_problem(tmp_path):
    write_streets(tmp_path, 0, frames=1, size=(32, 64), split='val', sequence=True)
    camera = Cityscapes3D(tmp_path, 'val').frames[0].path('camera')
    camera.write_text('x')
    check = check_dataset(tmp_path)
    (problem,) = check.problems
    assert problem.startswith(f'{camera}: not valid JSON')
    assert {split: count.broken for split, count in check.splits.items()} == {
        'val': 1,
        'val (sequence)': 30,
    }


def test_the_verb_ends_with_counts_and_tells_by_its_exit_code(tree, capsys):
    assert main(['check-dataset', str(tree)]) == 0
    assert 'no problem' in capsys.readouterr().out
    Cityscapes3D(tree, 'val').frames[0].path('depth').write_bytes(b'')
    assert main(['check-dataset', str(tree)]) == 1
    out = capsys.readouterr().out
    assert out.splitlines()[0].endswith('disparity.png: damaged image (neither PNG nor JPEG)')
    assert '1 problem' in out
    assert main(['check-dataset', str(tree / 'camera')]) == 2
    assert 'not a Cityscapes tree' in capsys.readouterr().err


def test_a_folder_without_images_is_no_tree(tmp_path):
    with pytest.raises(InputError, match='not a Cityscapes tree'):
        check_dataset(tmp_path)
