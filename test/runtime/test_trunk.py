import pytest
import torch
from torch import nn

from tag_perception.core.network import PRESETS
from tag_perception.core.tasks import detection3d
from tag_perception.runtime.trunk import PeakHead, Trunk, fold_batch_norm

from .conftest import awake_network


@pytest.mark.parametrize('preset', ['tag_slim', 'ddrnet23_slim', 'pidnet_s'])
def test_trunk_says_what_the_network_says(preset):
    network = awake_network(preset)
    image = torch.randn(2, 3, 64, 128)
    with torch.inference_mode():
        expected = network(image)
        trunk = Trunk(network)
        actual = dict(zip(trunk.names, trunk(image), strict=True))
        dense = Trunk(network, sparse=False)
        plain = dict(zip(dense.names, dense(image), strict=True))
    assert actual.keys() == {'heatmap', 'features', 'semantic', 'depth'}
    heat = expected['detection3d'][:, : detection3d.SUBHEADS['heatmap']]
    torch.testing.assert_close(actual['heatmap'], heat, rtol=1e-3, atol=1e-3)
    for name in ('semantic', 'depth'):
        torch.testing.assert_close(actual[name], expected[name], rtol=1e-3, atol=1e-3)
    assert plain.keys() == expected.keys()
    for name, values in plain.items():
        torch.testing.assert_close(values, expected[name], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize('channels_last', [False, True])
def test_peak_head_equals_the_convolutions_in_every_cell_corners_included(channels_last):
    torch.manual_seed(1)
    head = detection3d.Head(in_channels=5, hidden=4)
    for parameter in head.parameters():
        nn.init.normal_(parameter)
    features = torch.randn(2, 5, 6, 7)
    if channels_last:
        features = features.contiguous(memory_format=torch.channels_last)
    cells = torch.stack([torch.randperm(42), torch.randperm(42)])
    expected = head(features)[:, detection3d.SUBHEADS['heatmap'] :].flatten(2)
    rows = PeakHead(head)(features, cells)
    assert rows.shape == (2, 42, 37)
    for image in range(2):
        torch.testing.assert_close(rows[image].T, expected[image][:, cells[image]])


def test_folding_leaves_the_network_alone_and_no_batch_norm_after_a_convolution():
    network = awake_network('tag_slim')
    before = {name: value.clone() for name, value in network.state_dict().items()}
    folded = fold_batch_norm(network)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert any(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def test_sparse_trunk_of_the_paper_saves_a_sixth_of_the_work():
    from torch.utils.flop_counter import FlopCounterMode

    from tag_perception.core.network import build_network

    with torch.device('meta'):
        network = build_network(PRESETS['tag']).eval()
        image = torch.zeros(1, 3, 1024, 2048)
        macs = []
        for sparse in (False, True):
            counter = FlopCounterMode(display=False)
            with counter:
                Trunk(network, sparse)(image)
            macs.append(counter.get_total_flops() // 2)
    saved = 8 * 256 * 64 * 9 * 128 * 256 + 64 * 37 * 128 * 256
    assert macs[0] - macs[1] == saved
    assert saved / macs[0] > 0.17


def test_a_network_without_detection_has_no_peak_head():
    trunk = Trunk(awake_network('dla34_semantic'))
    assert trunk.names == ('semantic',)
    assert trunk.peak_head is None
