import torch

from tag_perception.core.backbones.icnet import CascadeFusion, ICNet, SummedPyramidPooling


def test_three_image_sizes_meet_at_a_quarter():
    with torch.device('meta'), torch.no_grad():
        backbone = ICNet().eval()
        stems = []
        backbone.trunk.stem.register_forward_pre_hook(
            lambda _m, args: stems.append(args[0].shape[-2:])
        )
        features = backbone(torch.empty(1, 3, 96, 160))
    assert sorted(map(tuple, stems)) == [(24, 40), (48, 80)]  # one trunk for both
    assert features.h.shape == (1, 128, 24, 40)
    assert features.x_semantic.shape == (1, 2048, 2, 3)


def test_cascade_fusion_adds_the_enlarged_coarse_map():
    fusion = CascadeFusion(4, 6, 8).eval()
    coarse, fine = torch.randn(1, 4, 3, 5), torch.randn(1, 6, 12, 20)
    fused = fusion(coarse, fine)
    assert fused.shape == (1, 8, 12, 20)
    enlarged = torch.nn.functional.interpolate(
        coarse, size=(12, 20), mode='bilinear', align_corners=False
    )
    expected = torch.relu(fusion.coarse(enlarged) + fusion.fine(fine))
    torch.testing.assert_close(fused, expected)


def test_pooled_maps_are_summed():
    pooling = SummedPyramidPooling(2, 3).eval()
    given = []
    pooling.fuse.register_forward_pre_hook(lambda _m, args: given.append(args[0]))
    x = torch.full((1, 2, 6, 6), 1.5)
    pooling(x)
    torch.testing.assert_close(given[0], torch.cat([x, 4 * x], dim=1))
