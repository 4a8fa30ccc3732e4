"""runtime/fused.py: a trunk made of our kernels says what the trunk says."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn

from tag_perception.core.network import PRESETS
from tag_perception.runtime.branch import Branch
from tag_perception.runtime.trunk import Trunk

from .conftest import awake_network

fused = pytest.importorskip('tag_perception.runtime.fused', exc_type=ImportError)

pytestmark = pytest.mark.gpu


class Stream:
    """Where there is no GPU, everything has its order."""

    def wait_stream(self, other):
        pass


@pytest.fixture(autouse=True)
def streams(device, monkeypatch):
    if device == 'cpu':
        for name in ('Stream', 'current_stream'):
            monkeypatch.setattr(torch.cuda, name, Stream)
        monkeypatch.setattr(torch.cuda, 'stream', nullcontext)


def trunk(preset, sparse=True, **changes):
    return Trunk(awake_network(preset, **changes), sparse)


def fuse(plain):
    """Waits for the branch, as the decoding does."""
    branch = Branch(torch.cuda.Stream())
    ours = fused.FusedTrunk(plain, branch)
    ours.register_forward_hook(lambda *_: branch.join())
    return ours


def check(plain, ours, image, tolerance):
    with torch.inference_mode():
        for actual, expected in zip(ours(image), plain(image), strict=True):
            assert actual.shape == expected.shape
            error = (actual.float() - expected.float()).norm() / expected.float().norm()
            assert error <= 10 * tolerance  # of forty layers


@pytest.mark.parametrize('sparse', [True, False])
@pytest.mark.parametrize('size', [(64, 128), (96, 160)])
def test_trunk_of_tag(device, dtype, tolerance, sparse, size):
    plain = trunk('tag', sparse, width=16).to(device, dtype)
    image = torch.randn(2, 3, *size, device=device, dtype=dtype)
    ours = fuse(trunk('tag', sparse, width=16).to(device, dtype))
    assert isinstance(ours.features, fused.TwoPathways)
    assert not any(isinstance(module, nn.Conv2d) for module in ours.modules())
    check(plain, ours, image.to(memory_format=torch.channels_last), tolerance)


@pytest.mark.parametrize(
    'changes',
    [
        {'channel_attention': False},
        {'spatial_attention': False},
        {'spatial_kernel': 'pointwise'},
        {'high_resolution_branch': False},
        {'context': 'ppm'},
        {'tasks': ('semantic',)},
        {'width': 8},  # too few channels for some of the kernels
    ],
    ids=str,
)
def test_trunks_of_other_shapes(device, dtype, tolerance, changes):
    changes = {'width': 16, **changes}
    plain = trunk('tag', **changes).to(device, dtype)
    ours = fuse(trunk('tag', **changes).to(device, dtype))
    image = torch.randn(1, 3, 64, 128, device=device, dtype=dtype)
    check(plain, ours, image.to(memory_format=torch.channels_last), tolerance)


@pytest.mark.parametrize('preset', ['ddrnet23_slim', 'pidnet_s'])
def test_trunks_of_other_backbones(device, dtype, tolerance, preset):
    plain = trunk(preset).to(device, dtype)
    ours = fuse(trunk(preset).to(device, dtype))
    image = torch.randn(1, 3, 64, 128, device=device, dtype=dtype)
    check(plain, ours, image.to(memory_format=torch.channels_last), 10 * tolerance)


@pytest.mark.parametrize('preset', PRESETS)
def test_every_preset_is_as_near_to_full_precision_as_torch(device, preset):
    """Random weights of deep networks amplify rounding: how much, torch tells."""
    if device == 'cpu':
        pytest.skip('takes minutes in the interpreter')
    image = torch.randn(1, 3, 96, 128, device=device).to(memory_format=torch.channels_last)
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        exact = trunk(preset).to(device)(image)
        plain = trunk(preset).to(device, torch.float16)(image.half())
        ours = fuse(trunk(preset).to(device, torch.float16))(image.half())
    for actual, other, expected in zip(ours, plain, exact, strict=True):
        error = (actual.float() - expected).norm() / expected.norm()
        usual = (other.float() - expected).norm() / expected.norm()
        assert error <= 1.5 * usual, f'{error:.5f}, where torch is {usual:.5f} off'
