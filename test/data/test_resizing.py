from dataclasses import replace

import numpy as np
import pytest
import torch

from tag_perception.core import geometry
from tag_perception.core.preprocess import to_input
from tag_perception.data.cityscapes3d import Cityscapes3D
from tag_perception.data.resizing import resize_sample

SIZES = [(64, 128), (96, 160), (160, 288)]


@pytest.fixture(scope='module')
def sample(write_tree, tmp_path_factory):
    return Cityscapes3D(write_tree(tmp_path_factory.mktemp('tree'), frames=1), 'val')[0]


@pytest.mark.parametrize('size', SIZES)
def test_training_sees_the_pixels_that_inference_sees(sample, size):
    resized = resize_sample(sample, size)
    for_training = to_input(torch.from_numpy(resized.image)[None], size)
    for_inference = to_input(torch.from_numpy(sample.image)[None], size)
    assert torch.equal(for_training, for_inference)


@pytest.mark.parametrize('size', SIZES)
def test_labels_take_existing_values_of_the_nearest_pixel(sample, size):
    resized = resize_sample(sample, size)
    assert resized.semantic.shape == resized.depth.shape == size
    assert set(np.unique(resized.semantic)) <= set(np.unique(sample.semantic))
    rows = np.floor((np.arange(size[0]) + 0.5) * sample.camera.height / size[0]).astype(int)
    columns = np.floor((np.arange(size[1]) + 0.5) * sample.camera.width / size[1]).astype(int)
    assert np.array_equal(resized.semantic, sample.semantic[np.ix_(rows, columns)])
    nearest = sample.depth[np.ix_(rows, columns)]
    assert np.array_equal(resized.depth, nearest, equal_nan=True)


@pytest.mark.parametrize('size', SIZES)
def test_rectangles_move_with_the_projection(sample, size):
    resized = resize_sample(sample, size)
    assert (resized.camera.height, resized.camera.width) == size
    assert torch.equal(resized.detection3d.center_cam, sample.detection3d.center_cam)

    def offset_in_box(s):
        """Where the projected 3D centre lies within its rectangle, 0…1."""
        camera, objects = s.camera, s.detection3d
        intrinsics = torch.tensor([camera.fx, camera.fy, camera.u0, camera.v0])
        pixel = geometry.project(geometry.camera_to_optical(objects.center_cam), intrinsics)
        low, high = objects.box_2d_px[:, :2], objects.box_2d_px[:, 2:]
        return (pixel - low) / (high - low)

    assert torch.allclose(offset_in_box(resized), offset_in_box(sample), atol=1e-4)
    scale = np.array([size[1] / 256, size[0] / 128] * 2)
    assert np.allclose(resized.ignore_px + 0.5, (sample.ignore_px + 0.5) * scale)


def test_the_same_size_changes_nothing_and_absent_labels_stay_absent(sample):
    assert resize_sample(sample, (128, 256)) is sample
    bare = replace(sample, semantic=None, depth=None, detection3d=None, ignore_px=None)
    resized = resize_sample(bare, (64, 128))
    assert resized.semantic is resized.depth is resized.detection3d is resized.ignore_px is None
