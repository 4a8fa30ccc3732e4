import numpy as np
import pytest
import torch
from torch import nn

from tag_perception.core.backbones.tag import Aggregation, Node, PyramidPooling, TwoPathway


def with_random_statistics(module):
    """Evaluation mode with batch norms that do something."""
    torch.manual_seed(0)
    for norm in (m for m in module.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.running_mean.normal_(std=0.3)
        norm.running_var.uniform_(0.5, 2)
        nn.init.uniform_(norm.weight, 0.5, 2)
        nn.init.normal_(norm.bias, std=0.3)
    return module.eval()


def convolution_by_hand(layer, x):
    """3×3 convolution with zero padding, batch norm and ReLU, in numpy."""
    weight, norm = layer.conv.weight.detach().numpy(), layer.norm
    batch, _, height, width = x.shape
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    y = np.zeros((batch, len(weight), height, width))
    for v in range(height):
        for u in range(width):
            patch = padded[:, :, v : v + 3, u : u + 3]
            y[:, :, v, u] = np.einsum('bikl,oikl->bo', patch, weight)
    mean, var, gain, shift = (
        t.detach().numpy()[:, None, None]
        for t in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    return np.maximum((y - mean) / np.sqrt(var + norm.eps) * gain + shift, 0)


def doubled_by_hand(x):
    """2× bilinear interpolation with aligned pixel edges: weights 3/4 and 1/4, border repeated."""
    for axis in (2, 3):
        x = np.moveaxis(x, axis, -1)
        before = np.concatenate([x[..., :1], x[..., :-1]], axis=-1)
        after = np.concatenate([x[..., 1:], x[..., -1:]], axis=-1)
        x = np.stack([0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after], axis=-1)
        x = np.moveaxis(x.reshape(*x.shape[:-2], -1), -1, axis)
    return x


def test_node_is_equation_1():
    node = with_random_statistics(Node(x_channels=6, y_channels=4))
    x, y = torch.randn(2, 6, 3, 4), torch.randn(2, 4, 6, 8)
    projected = doubled_by_hand(convolution_by_hand(node.P1, x.numpy()))
    expected = convolution_by_hand(node.P2, np.concatenate([projected, y.numpy()], axis=1))
    np.testing.assert_allclose(node(x, y).detach(), expected, atol=1e-5)


class Spelled(nn.Module):
    """Stands in for a node and writes down its call."""

    def __init__(self, name):
        super().__init__()
        self.name = name

    def forward(self, x, y):
        return f'{self.name}({x},{y})'


@pytest.mark.parametrize(
    ('features', 'expected'),
    [
        (['x3', 'x4'], 'f11(x4,x3)'),
        (['x3', 'x4', 'x5'], 'f21(f22(x5,x4),f11(x4,x3))'),
        (
            ['x2', 'x3', 'x4', 'x5'],
            'f31(f32(f33(x5,x4),f22(x4,x3)),f21(f22(x4,x3),f11(x3,x2)))',
        ),
    ],
)
def test_aggregation_calls_the_nodes_in_the_order_of_algorithm_1(features, expected):
    aggregation = Aggregation([1] * len(features))
    for name in aggregation.f:
        aggregation.f[name] = Spelled(f'f{name}')
    given = list(features)
    assert aggregation(given) == expected
    assert given == features


def test_h_is_equation_2():
    backbone = with_random_statistics(TwoPathway(width=4))
    seen = {}
    for name in ('context', 'g'):
        getattr(backbone, name).register_forward_hook(
            lambda _m, _i, output, name=name: seen.update({name: output.detach().numpy()})
        )
    inputs = {}
    for name in ('detail', 'g'):
        getattr(backbone, name).register_forward_pre_hook(
            lambda _m, args, name=name: inputs.update({name: args[0]})
        )
    backbone.layer2.register_forward_hook(lambda _m, _i, output: inputs.update(layer2=output))
    h, x_semantic, x_detail, *_ = backbone(torch.randn(2, 3, 128, 64))
    np.testing.assert_allclose(h.detach(), doubled_by_hand(seen['context']) + seen['g'], atol=1e-5)
    assert inputs['detail'] is inputs['layer2']
    assert inputs['g'] is x_detail
    assert h.shape == (2, 16, 16, 8)
    assert x_semantic.shape == (2, 64, 2, 1)
    assert x_detail.shape == (2, 8, 16, 8)


def test_aggregation_gets_the_last_three_stages():
    backbone = with_random_statistics(TwoPathway(width=4))
    stages = {}
    for name in ('layer3', 'layer4', 'layer5'):
        getattr(backbone, name).register_forward_hook(
            lambda _m, _i, output, name=name: stages.update({name: output})
        )
    given = []
    backbone.context.register_forward_pre_hook(lambda _m, args: given.extend(args[0]))
    features = backbone(torch.randn(1, 3, 64, 64))
    assert [id(x) for x in given] == [id(x) for x in stages.values()]
    assert features.x_semantic is stages['layer5']


def test_without_the_branch_beta_comes_from_layer_2_and_h_is_the_aggregate():
    backbone = with_random_statistics(TwoPathway(width=4, high_resolution_branch=False))
    seen = {}
    backbone.layer2.register_forward_hook(lambda _m, _i, output: seen.update(layer2=output))
    backbone.context.register_forward_hook(lambda _m, _i, output: seen.update(context=output))
    h, _, x_detail, *_ = backbone(torch.randn(1, 3, 64, 128))
    assert x_detail is seen['layer2']
    np.testing.assert_allclose(
        h.detach(), doubled_by_hand(seen['context'].detach().numpy()), atol=1e-5
    )


@pytest.mark.parametrize('blocks', [(0, 0, 0), (1, 1, 0), (2, 2, 0), (1, 1, 1)])
def test_detail_path_keeps_the_resolution(blocks):
    detail = TwoPathway(width=4, detail_blocks=blocks).detail
    assert len(detail) == sum(blocks)
    assert all(m.stride == (1, 1) for m in detail.modules() if isinstance(m, nn.Conv2d))


def test_pyramid_pooling_sees_means_of_regions():
    pooling = with_random_statistics(PyramidPooling(4, 2))
    x = torch.randn(1, 4, 6, 12)
    pooled = {}
    for bins, branch in zip(pooling.BINS, pooling.branches, strict=True):
        branch.register_forward_pre_hook(
            lambda _m, args, bins=bins: pooled.update({bins: args[0]})
        )
    given = []
    pooling.fuse.register_forward_pre_hook(lambda _m, args: given.append(args[0]))
    assert pooling([None, x]).shape == (1, 2, 6, 12)
    for bins in (1, 2, 3, 6):
        expected = x.reshape(1, 4, bins, 6 // bins, bins, 12 // bins).mean(dim=(3, 5))
        torch.testing.assert_close(pooled[bins], expected)
    assert torch.equal(given[0][:, :4], x)
    assert given[0].shape[1] == 4 + 4 * 2
