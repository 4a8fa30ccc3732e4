import pytest
import torch
import torch.nn.functional as F

from tag_perception.core.preprocess import to_input

maps = pytest.importorskip('tag_perception.runtime.kernels.maps', exc_type=ImportError)

pytestmark = pytest.mark.gpu


def random(*shape, device, dtype):
    torch.manual_seed(sum(shape))
    return torch.randn(shape, device=device).to(dtype).to(memory_format=torch.channels_last)


def upsample(x, like):
    return F.interpolate(x.float(), like.shape[-2:], mode='bilinear', align_corners=False)


@pytest.mark.parametrize('bgr', [(False,), (True,), (False, True, False)])
def test_normalised_image_is_that_of_preprocessing(device, dtype, bgr):
    torch.manual_seed(0)
    images = torch.randint(0, 256, (len(bgr), 9, 113, 3), dtype=torch.uint8, device=device)
    expected = torch.cat(
        [to_input(i[None], (9, 113), order) for i, order in zip(images, bgr, strict=True)]
    ).to(dtype)
    order = torch.tensor(bgr, dtype=torch.uint8, device=device)
    actual = maps.normalise(images, order, dtype)
    assert actual.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(actual, expected)


@pytest.mark.parametrize(
    ('small', 'large'), [((3, 5), (6, 10)), ((1, 2), (3, 5)), ((4, 20), (8, 40))]
)
@pytest.mark.parametrize('channels', [32, 128])
def test_enlarged_and_concatenated(device, dtype, tolerance, small, large, channels):
    x = random(2, channels, *small, device=device, dtype=dtype)
    y = random(2, channels, *large, device=device, dtype=dtype)
    expected = torch.cat([upsample(x, y), y.float()], 1)
    actual = maps.concat_upsampled(x, y)
    assert (actual.float() - expected).norm() <= tolerance * expected.norm()


@pytest.mark.parametrize('tasks', [1, 3])
def test_features_of_all_tasks(device, dtype, tolerance, tasks):
    x = random(2, 64, 4, 9, device=device, dtype=dtype)
    detail = random(2, 64, 8, 18, device=device, dtype=dtype)
    alpha = torch.rand(tasks, 2, 64, device=device).to(dtype)
    # One channel of several, as the convolution that makes it leaves it.
    beta = random(2, 16, 8, 18, device=device, dtype=dtype)[:, 3:4]
    h = upsample(x, detail) + detail
    h_t = maps.attend(x, detail, alpha, beta)
    assert len(h_t) == tasks
    for task, actual in enumerate(h_t):
        expected = alpha[task][:, :, None, None] * h + beta
        assert (actual.float() - expected).norm() <= tolerance * expected.norm()
