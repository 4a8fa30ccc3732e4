import cv2
import numpy as np
import pytest
import torch

from tag_perception.core.preprocess import MEAN, STD, to_input, to_tensor, view_of
from tag_perception.core.structures import Camera


def random_image(height=48, width=80, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def test_wrapping_shares_memory_for_rgb_and_bgr():
    rgb = random_image()
    tensor, bgr = to_tensor(rgb)
    assert not bgr
    assert tensor.data_ptr() == rgb.ctypes.data
    view = random_image()[..., ::-1]
    tensor, bgr = to_tensor(view)
    assert bgr
    assert tensor.data_ptr() == view[..., ::-1].ctypes.data


def test_read_only_and_flipped_images_are_copied_right():
    image = random_image()
    image.flags.writeable = False
    assert np.array_equal(to_tensor(image)[0].numpy(), image)
    upside_down = random_image()[::-1]
    assert np.array_equal(to_tensor(upside_down)[0].numpy(), upside_down)


@pytest.mark.parametrize('bad', [np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8)])
def test_anything_but_uint8_rgb_is_refused(bad):
    with pytest.raises(ValueError, match='expected an'):
        to_tensor(bad)


def test_bgr_memory_and_rgb_memory_give_the_same_input():
    rgb = random_image()
    bgr_view = np.ascontiguousarray(rgb[..., ::-1])[..., ::-1]
    inputs = []
    for image in (rgb, bgr_view):
        tensor, bgr = to_tensor(image)
        inputs.append(to_input(tensor[None], (32, 64), bgr))
    assert torch.equal(*inputs)


def test_normalisation_without_resize_is_the_formula():
    rgb = random_image(32, 64)
    expected = (rgb / 255 - np.array(MEAN)) / np.array(STD)
    actual = to_input(to_tensor(rgb)[0][None], (32, 64))[0].permute(1, 2, 0)
    assert np.allclose(actual.numpy(), expected, atol=1e-5)
    assert actual.permute(2, 0, 1)[None].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize('size', [(32, 64), (48, 80), (64, 96)])
@pytest.mark.parametrize('bgr', [False, True])
def test_rows_with_padding_in_a_batch_are_read_right_and_left_alone(size, bgr):
    wide = torch.from_numpy(np.stack([random_image(48, 90, seed) for seed in range(2)]))
    images, before = wide[:, :, :80], wide.clone()
    inputs = to_input(images, size, bgr)
    assert inputs.shape == (2, 3, *size)
    assert inputs.is_contiguous(memory_format=torch.channels_last)
    for image, row in zip(images, inputs, strict=True):
        assert torch.equal(to_input(image.clone()[None], size, bgr)[0], row)
    assert torch.equal(wide, before)


def test_halving_a_constant_and_a_ramp_keeps_grey_levels():
    ramp = np.broadcast_to(np.arange(0, 256, 2, np.uint8)[None, :, None], (64, 128, 3)).copy()
    actual = to_input(to_tensor(ramp)[0][None], (32, 64))
    grey = actual[0, 0] * STD[0] * 255 + MEAN[0] * 255
    reference = cv2.resize(ramp, (64, 32), interpolation=cv2.INTER_AREA)[..., 0]
    assert np.abs(grey.numpy() - reference)[:, 1:-1].max() <= 1.01


def test_uint8_and_float_resizing_agree_to_one_grey_level():
    images = to_tensor(random_image(64, 128))[0][None]
    on_cpu = to_input(images, (32, 64))
    as_float = torch.nn.functional.interpolate(
        images.permute(0, 3, 1, 2).float(), size=(32, 64), mode='bilinear', antialias=True
    ).round()
    mean, std = (torch.tensor(x).view(1, 3, 1, 1) * 255 for x in (MEAN, STD))
    assert ((on_cpu * std + mean) - as_float).abs().max() <= 1.01


def test_view_carries_the_intrinsics_of_the_camera_image():
    camera = Camera(width=2048, height=1024, fx=2262.52, fy=2265.3, u0=1096.98, v0=513.137)
    view = view_of([camera, camera], (512, 1024), 'cpu')
    assert view.image_size == (1024, 2048)
    assert view.input_size == (512, 1024)
    assert view.intrinsics.shape == (2, 4)
    assert view.intrinsics[1].tolist() == pytest.approx([2262.52, 2265.3, 1096.98, 513.137])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_cuda_and_cpu_agree_to_one_grey_level():
    images = to_tensor(random_image(64, 128))[0][None]
    difference = to_input(images, (32, 64)) - to_input(images.cuda(), (32, 64)).cpu()
    assert difference.abs().max() * 255 * min(STD) <= 1.01
