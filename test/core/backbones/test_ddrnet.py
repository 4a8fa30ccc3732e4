import torch
import torch.nn.functional as F

from tag_perception.core.backbones.ddrnet import DAPPM, DDRNet, DualStage


def test_shapes_at_sides_that_do_not_halve_evenly():
    features = DDRNet(width=4).eval()(torch.randn(1, 3, 96, 160))
    assert features.h.shape == (1, 16, 12, 20)
    assert features.x_semantic.shape == (1, 64, 2, 3)
    assert features.auxiliary.shape == (1, 8, 12, 20)


def test_dual_stage_adds_each_path_to_the_other_before_the_relu():
    stage = DualStage(4, 8, 4, blocks=1).eval()
    semantic, detail = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8)
    fused_semantic, fused_detail = stage(semantic, detail)
    s, d = stage.semantic(semantic), stage.detail(detail)
    assert s.min() < 0  # the stage itself ends without ReLU
    enlarged = F.interpolate(
        stage.compress(s.relu()), scale_factor=2, mode='bilinear', align_corners=False
    )
    torch.testing.assert_close(fused_semantic, (s + stage.down(d.relu())).relu())
    torch.testing.assert_close(fused_detail, (d + enlarged).relu())


def test_down_sampling_takes_one_step_per_octave():
    assert len(DualStage(8, 16, 8, blocks=1).down) == 1
    assert len(DualStage(16, 32, 8, blocks=1).down) == 2


def test_every_pyramid_scale_is_refined_with_the_finer_one():
    pooling = DAPPM(4, 2, 6).eval()
    x = torch.randn(1, 4, 16, 32)
    inputs = []
    for refine in pooling.refine:
        refine.register_forward_pre_hook(lambda _m, args: inputs.append(args[0]))
    assert pooling(x).shape == (1, 6, 16, 32)
    pools = [F.avg_pool2d(x, k, s, padding=k // 2) for k, s in ((5, 2), (9, 4), (17, 8))]
    branch = pooling.scales[0](x)
    for k, pooled in enumerate([*pools, x.mean(dim=(2, 3), keepdim=True)]):
        scaled = F.interpolate(
            pooling.scales[k + 1](pooled), size=(16, 32), mode='bilinear', align_corners=False
        )
        torch.testing.assert_close(inputs[k], scaled + branch)
        branch = pooling.refine[k](inputs[k])


def test_ddrnet39_exchanges_features_once_more():
    backbone = DDRNet(
        width=4, layer1_blocks=3, layer2_blocks=4, layer3_blocks=(3, 3), layer4_blocks=3
    )
    assert len(backbone.layer3) == 2
    assert backbone.eval()(torch.randn(1, 3, 64, 64)).h.shape == (1, 16, 8, 8)
