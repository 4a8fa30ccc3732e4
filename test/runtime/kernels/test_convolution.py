import pytest
import torch
from torch import nn

convolution = pytest.importorskip(
    'tag_perception.runtime.kernels.convolution', exc_type=ImportError
)

pytestmark = pytest.mark.gpu
ACTIVATIONS = {'none': lambda x: x, 'relu': torch.relu, 'sigmoid': torch.sigmoid}


def maps(*shape, device):
    torch.manual_seed(1)
    return torch.randn(shape, device=device).to(memory_format=torch.channels_last)


def layer(*args, device, **options):
    torch.manual_seed(0)
    return nn.Conv2d(*args, **options).to(device).requires_grad_(False)


def assert_equal(actual, expected, tolerance):
    assert actual.shape == expected.shape
    assert (actual.float() - expected).norm() <= tolerance * expected.norm()


@pytest.mark.parametrize(
    ('shape', 'channels', 'kernel', 'options'),
    [
        ((2, 64, 9, 33), 64, 3, {}),
        ((1, 32, 12, 200), 19, 1, {}),  # outputs that no matrix product has
        ((1, 64, 8, 16), 1, 3, {'dilation': 2}),
        ((2, 64, 9, 35), 128, 3, {'stride': 2}),  # odd sides
        ((1, 128, 4, 70), 64, 1, {'stride': 2}),
        ((1, 16, 3, 130), 256, 3, {}),
        ((1, 48, 8, 16), 80, 3, {}),
        ((1, 512, 1, 2), 64, 3, {'stride': 2}),
        ((2, 32, 1, 1), 32, 3, {}),
    ],
)
@pytest.mark.parametrize('activation', ACTIVATIONS)
def test_convolution_equals_the_layer(
    device, dtype, tolerance, shape, channels, kernel, options, activation
):
    padding = options.get('dilation', 1) * (kernel // 2)
    plain = layer(shape[1], channels, kernel, padding=padding, **options, device=device)
    assert convolution.supports(plain)
    x = maps(*shape, device=device)
    expected = ACTIVATIONS[activation](plain(x))
    ours = convolution.Convolution(plain.to(dtype), activation)
    assert_equal(ours(x.to(dtype)), expected, tolerance)


@pytest.mark.parametrize('shape', [(2, 64, 6, 20), (1, 64, 4, 100), (1, 64, 3, 180)])
@pytest.mark.parametrize('stride', [1, 2])
def test_shortcut_is_added_before_the_activation(device, dtype, tolerance, shape, stride):
    plain = layer(64, 64, 3, stride, 1, device=device)
    x = maps(*shape, device=device)
    shortcut = 2 * maps(*plain(x).shape, device=device)
    expected = torch.relu(plain(x) + shortcut)
    ours = convolution.Convolution(plain.to(dtype), 'relu')
    assert_equal(ours(x.to(dtype), shortcut.to(dtype)), expected, tolerance)


def test_maps_in_any_order_and_slices_of_maps(device, dtype, tolerance):
    plain = layer(32, 32, 3, padding=1, device=device)
    x = maps(2, 64, 5, 40, device=device)
    ours = convolution.Convolution(plain.to(dtype))
    half = x[:, :32]
    expected = plain.float()(half)
    assert_equal(ours(half.to(dtype).contiguous()), expected, tolerance)
    assert_equal(ours(x.to(dtype)[:, :32]), expected, tolerance)


@pytest.mark.parametrize(
    'options',
    [
        {'kernel_size': 3, 'stride': 3, 'padding': 1},
        {'kernel_size': 3, 'padding': 0},
        {'kernel_size': 3, 'stride': 2, 'dilation': 2, 'padding': 2},
        {'kernel_size': 3, 'padding': 1, 'groups': 2},
        {'kernel_size': (1, 3), 'padding': (0, 1)},
        {'kernel_size': 2, 'padding': 1},
    ],
)
def test_other_layers_are_left_to_torch(options):
    assert not convolution.supports(nn.Conv2d(64, 64, **options))
    assert not convolution.supports(nn.Conv2d(24, 64, 3, padding=1))


@pytest.mark.parametrize(('kernel', 'stride', 'channels'), [(3, 2, 64), (7, 1, 16), (7, 2, 64)])
def test_first_convolution_equals_the_layer(device, dtype, tolerance, kernel, stride, channels):
    plain = layer(3, channels, kernel, stride, kernel // 2, device=device)
    image = maps(2, 3, 11, 300, device=device)
    expected = torch.relu(plain(image))
    ours = convolution.ImageConvolution(plain.to(dtype), 'relu')
    assert_equal(ours(image.to(dtype)), expected, tolerance)


@pytest.mark.parametrize('channels', [16, 32, 48, 64, 80, 128, 192, 256, 384, 512, 1024])
@pytest.mark.parametrize('width', [1, 2, 5, 8, 16, 31, 32, 60, 64, 65, 128, 240, 512])
def test_tile_fits_the_map_and_the_accelerator(width, channels):
    for batch, height in ((1, 1), (1, 64), (8, 256)):
        tile = convolution.choose_tile(batch, height, width, channels)
        assert channels % tile.channels == 0
        assert tile.columns in (64, 128)
        fetched = (tile.columns + tile.channels) * 64 * 2
        assert tile.stages * fetched <= 227 * 1024
