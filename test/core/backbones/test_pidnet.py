import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tag_perception.core.backbones.pidnet import (
    PAPPM,
    BoundaryFusion,
    LightBoundaryFusion,
    PIDNet,
    PixelAttention,
)


@pytest.mark.parametrize('large', [False, True])
def test_shapes_at_sides_that_do_not_halve_evenly(large):
    features = PIDNet(width=4, large=large).eval()(torch.randn(1, 3, 96, 160))
    assert features.h.shape == (1, 16, 12, 20)
    assert features.x_semantic.shape == (1, 64, 2, 3)
    assert features.auxiliary.shape == features.boundary.shape == (1, 8, 12, 20)


@pytest.mark.parametrize(('bias', 'takes_integral'), [(30.0, True), (-30.0, False)])
def test_pixel_attention_takes_the_path_it_agrees_with(bias, takes_integral):
    guide = PixelAttention(8, 4).eval()
    for layer, value in ((guide.query, 1.0), (guide.key, bias)):  # their product is ± large
        nn.init.zeros_(layer.norm.weight)
        nn.init.constant_(layer.norm.bias, value)
    p, i = torch.randn(1, 4, 6, 8), torch.randn(1, 8, 3, 4)
    enlarged = F.interpolate(guide.compress(i), size=(6, 8), mode='bilinear', align_corners=False)
    torch.testing.assert_close(guide(p, i), enlarged if takes_integral else p)


def test_boundary_fusion_takes_detail_on_boundaries_and_context_elsewhere():
    fusion = BoundaryFusion(4).eval()
    p, i = torch.randn(1, 4, 6, 8), torch.randn(1, 4, 6, 8)
    torch.testing.assert_close(fusion(p, i, torch.full_like(p, 50.0)), fusion.conv(p.clone()))
    torch.testing.assert_close(fusion(p, i, torch.full_like(p, -50.0)), fusion.conv(i.clone()))


def test_light_boundary_fusion_keeps_each_path_whole_once():
    fusion = LightBoundaryFusion(4).eval()
    p, i = torch.randn(1, 4, 6, 8), torch.randn(1, 4, 6, 8)
    on, off = torch.full_like(p, 50.0), torch.full_like(p, -50.0)
    torch.testing.assert_close(fusion(p, i, on), fusion.detail(p) + fusion.context(i + p))
    torch.testing.assert_close(fusion(p, i, off), fusion.detail(p + i) + fusion.context(i))


def test_parallel_pyramid_refines_each_scale_apart():
    pooling = PAPPM(4, 3, 5).eval()
    given = []
    pooling.refine.register_forward_pre_hook(lambda _m, args: given.append(args[0]))
    assert pooling(torch.randn(1, 4, 4, 8)).shape == (1, 5, 4, 8)
    changed = given[0].detach().requires_grad_()
    pooling.refine(changed)[:, :3].sum().backward()
    assert changed.grad[:, :3].abs().sum() > 0
    assert changed.grad[:, 3:].abs().sum() == 0
