import torch

from tag_perception.core.backbones.resnet import ResNet50, Trunk


def test_h_is_aggregated_at_an_eighth():
    with torch.device('meta'), torch.no_grad():
        features = ResNet50().eval()(torch.empty(1, 3, 64, 96))
    assert features.h.shape == (1, 256, 8, 12)
    assert features.x_semantic.shape == (1, 2048, 2, 3)


def test_trunk_has_the_parameters_of_resnet_50_without_its_last_layer():
    with torch.device('meta'):
        parameters = sum(p.numel() for p in Trunk().parameters())
    assert parameters == 25_557_032 - (2048 + 1) * 1000


def test_dilation_keeps_layer_4_at_a_sixteenth_with_the_same_parameters():
    with torch.device('meta'), torch.no_grad():
        plain, dilated = Trunk().eval(), Trunk(dilated=True).eval()
        image = torch.empty(1, 3, 64, 96)
        assert plain.to_layer4(image).shape == (1, 2048, 2, 3)
        assert dilated.to_layer4(image).shape == (1, 2048, 4, 6)
    assert [p.shape for p in plain.parameters()] == [p.shape for p in dilated.parameters()]
