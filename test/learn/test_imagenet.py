import cv2
import numpy as np
import pytest

from tag_perception.config import InputError
from tag_perception.core import checkpoint
from tag_perception.learn.configuration import read_experiment
from tag_perception.learn.imagenet import (
    ClassFolders,
    TrainingCrops,
    ValidationCrops,
    center_crop,
    random_crop,
)
from tag_perception.learn.training import train

from .conftest import TINY, TRAIN


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    """Two classes that a network can tell apart: blue and red images of many sizes."""
    root = tmp_path_factory.mktemp('imagenet')
    rng = np.random.default_rng(0)
    for split, count in (('train', 6), ('val', 3)):
        for name, channel in (('n02', 0), ('n01', 2)):  # BGR
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                image = rng.integers(0, 60, (*rng.integers(40, 120, 2), 3), np.uint8)
                image[..., channel] += 180
                cv2.imwrite(str(root / split / name / f'{name}_{index}.JPEG'), image)
            (root / split / name / 'notes.txt').write_text('no image')
    return root


def test_classes_are_the_sorted_folders(folders):
    split = ClassFolders(folders, 'val')
    assert split.classes == ['n01', 'n02']
    assert [class_id for _, class_id in split.files] == [0, 0, 0, 1, 1, 1]
    red = split.read(0)
    assert red[..., 0].mean() > 150 > red[..., 2].mean()


def test_crops_have_the_size_and_are_reproducible(folders):
    split = ClassFolders(folders, 'train')
    crops = TrainingCrops(split, (64, 96), seed=4)
    shown = [crops[draw] for draw in range(24)]
    assert {tuple(item['image'].shape) for item in shown} == {(64, 96, 3)}
    assert sorted(item['name'] for item in shown[:12]) == sorted(p.name for p, _ in split.files)
    assert (crops[5]['image'] == shown[5]['image']).all()
    twice = [item for item in shown if item['name'] == shown[0]['name']]
    assert (twice[0]['image'] != twice[1]['image']).any()
    assert len(ValidationCrops(split, (64, 64), 4)) == 4


def test_the_centre_crop_is_the_centre():
    image = np.zeros((160, 320, 3), np.uint8)
    image[70:90, 150:170] = 255
    crop = center_crop(image, (140, 140))
    rows, columns = np.nonzero(crop[..., 0] > 128)
    assert crop.shape == (140, 140, 3)
    assert (rows.mean(), columns.mean()) == (
        pytest.approx(69.5, abs=1),
        pytest.approx(69.5, abs=1),
    )


@pytest.mark.parametrize('shape', [(1, 1), (500, 3), (3, 500)])
def test_odd_images_are_cropped_too(shape):
    image = np.full((*shape, 3), 7, np.uint8)
    assert (random_crop(image, (32, 64), np.random.default_rng(0)) == 7).all()
    assert center_crop(image, (32, 64)).shape == (32, 64, 3)


def test_wrong_folders_are_one_clear_line(folders, tmp_path):
    with pytest.raises(InputError, match='0 class folders'):
        ClassFolders(tmp_path, 'train')
    with pytest.raises(InputError, match='test: no images'):
        ClassFolders(folders, 'test')
    (tmp_path / 'train' / 'a').mkdir(parents=True)
    (tmp_path / 'train' / 'b').mkdir()
    (tmp_path / 'train' / 'b' / 'x.png').write_bytes(b'nonsense')
    with pytest.raises(InputError, match=r'x\.png: cannot be read as an image'):
        ClassFolders(tmp_path, 'train').read(0)


def test_pre_training_learns_and_its_backbone_starts_another_training(
    folders, tiny, tmp_path, read_log
):
    overrides = [
        *TINY, f'data.root={folders}', 'data.batch_size=4', 'epochs=5', 'network.width=8',
        'precision=32-true', f'output={tmp_path}/imagenet', 'validate_every=5',
        'optimizer.lr=0.02', 'network.input_size=[64, 64]',
    ]  # fmt: skip
    folder = train(read_experiment(TRAIN / 'imagenet.yaml', overrides))
    losses = read_log(folder)
    assert list(losses) == list(range(15))  # 12 images make 3 steps of an epoch
    assert losses[14] < 0.5 * losses[0]
    rates = read_log(folder, 'train/lr')
    assert rates[0] == pytest.approx(0.02)
    assert rates[14] == pytest.approx(2e-5)
    assert 0 <= read_log(folder, 'validation/top1_error')[14] <= 1
    weights = folder / 'best.safetensors'
    assert checkpoint.load(weights).metadata['goal'] == 'imagenet'
    train(tiny('steps=1', f'init_from={weights}'))
