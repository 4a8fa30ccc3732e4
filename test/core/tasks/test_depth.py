"""Dense depth: parametrisation, loss by hand, cap and validity, decoding, learning."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tag_perception.core.structures import Camera, Sample, View
from tag_perception.core.tasks import depth


def sample(depth_m: np.ndarray | None) -> Sample:
    image = np.zeros((32, 64, 3), np.uint8)
    return Sample('a', image, Camera(64, 32, 60.0, 60.0, 32.0, 16.0), depth=depth_m)


def raw_of(depth_m: torch.Tensor) -> torch.Tensor:
    return torch.logit(depth_m / depth.DEPTH_CAP_M)


def view(image_size: tuple[int, int]) -> View:
    return View(torch.ones(1, 4), image_size, (32, 64))


def test_smooth_l1_by_hand():
    """Predicting 50 m: quadratic at 0.5 m, linear at 3 m; nothing unmeasured or far counts."""
    target = {
        'depth_m': torch.tensor([[[50.5, 53.0, math.nan, 100.1], [0.0, -1.0, math.inf, 50]]])
    }
    terms = depth.loss(torch.zeros(1, 1, 2, 4), target)
    assert terms.keys() == {'smooth_l1'}
    assert terms['smooth_l1'].item() == pytest.approx((0.5 * 0.5**2 + (3 - 0.5) + 0) / 3)
    wide = depth.loss(torch.zeros(1, 1, 2, 4), target, beta_m=10.0)['smooth_l1']
    assert wide.item() == pytest.approx((0.5 * 0.5**2 / 10 + 0.5 * 3**2 / 10 + 0) / 3)


@pytest.mark.parametrize('value', [math.nan, 0.0, 1000.0])
def test_all_invalid_gives_no_loss_and_no_gradient(value):
    output = torch.randn(2, 1, 4, 8, requires_grad=True)
    result = depth.loss(output, {'depth_m': torch.full((2, 32, 64), value)})['smooth_l1']
    result.backward()
    assert result.item() == 0
    assert torch.equal(output.grad, torch.zeros_like(output))


def test_some_invalid_pixels_leave_finite_gradients():
    output = torch.randn(1, 1, 4, 8, requires_grad=True)
    truth = torch.full((1, 32, 64), 20.0)
    truth[:, :16] = math.nan
    depth.loss(output, {'depth_m': truth})['smooth_l1'].backward()
    assert output.grad.isfinite().all()
    assert (output.grad[0, 0, :1] == 0).all()
    assert (output.grad[0, 0, 3] != 0).all()


@given(depth_m=st.floats(1, 99))
def test_range_is_covered_in_half_precision(depth_m):
    """From 1 to 99 m the raw value stays small enough for float16 to tell 1 % apart."""
    raw = raw_of(torch.tensor(depth_m)).half()
    decoded = depth.decode(raw.view(1, 1, 1, 1).expand(1, 1, 4, 8), view((32, 64)))
    assert decoded[0, 0, 0].item() == pytest.approx(depth_m, rel=0.01)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16])
def test_any_output_decodes_to_a_finite_depth_below_the_cap(dtype):
    extremes = torch.tensor([-6e4, -20, 0, 20, 6e4, 1, 2, 3], dtype=dtype)
    decoded = depth.decode(extremes.expand(2, 1, 4, 8), view((45, 83)))
    assert decoded.shape == (2, 45, 83)
    assert decoded.dtype == torch.float32
    assert ((decoded >= 0) & (decoded <= depth.DEPTH_CAP_M + 1e-4)).all()


def test_encode_decode_round_trip():
    depth_m = np.linspace(2, 90, 64, dtype=np.float32)[None].repeat(32, 0)
    target = depth.encode_target(sample(depth_m), 8)['depth_m']
    cells = target[None, None, 3::8, 3::8] / 2 + target[None, None, 4::8, 4::8] / 2
    decoded = depth.decode(raw_of(cells), view((32, 64)))
    assert torch.allclose(decoded[0, :, 4:-4], target[:, 4:-4], rtol=1e-4)
    with pytest.raises(ValueError, match='a has no depth labels'):
        depth.encode_target(sample(None), 8)


def test_untrained_head_answers_its_prior():
    head = depth.Head(16, 32)
    decoded = depth.decode(head(torch.zeros(1, 16, 4, 8)), view((32, 64)))
    assert (decoded > 5).all()
    assert (decoded < 50).all()


def test_head_overfits_one_sample():
    torch.manual_seed(0)
    head = depth.Head(16, 32)
    features = torch.randn(1, 16, 4, 8)
    road = np.linspace(90, 3, 32, dtype=np.float32)[:, None].repeat(64, 1)
    road[:, :8] = np.nan
    target = {k: v[None] for k, v in depth.encode_target(sample(road), 8).items()}
    optimizer = torch.optim.Adam(head.parameters(), 1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        depth.loss(head(features), target)['smooth_l1'].backward()
        optimizer.step()
    error = depth.decode(head(features), view((32, 64)))[0] - torch.from_numpy(road)
    assert error[4:-4, 8:].abs().mean() < 1.0
