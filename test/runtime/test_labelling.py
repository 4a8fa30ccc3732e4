import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from tag_perception.core.tasks import semantic
from tag_perception.runtime.labelling import labels_at


def smooth_logits(seed, batch, height, width, classes=19):
    """Regions of a few cells with boundaries between them, as a network draws them."""
    generator = torch.Generator().manual_seed(seed)
    coarse = 4 * torch.randn(batch, classes, 3, 5, generator=generator)
    return F.interpolate(coarse, size=(height, width), mode='bicubic')


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    cells=st.tuples(st.integers(1, 9), st.integers(1, 12)),
    factors=st.tuples(st.integers(1, 9), st.integers(1, 16)),
    rough=st.booleans(),
)
def test_labels_equal_the_argmax_of_the_upsampled_logits(seed, cells, factors, rough):
    logits = smooth_logits(seed, 2, *cells)
    if rough:
        logits = torch.randn(logits.shape, generator=torch.Generator().manual_seed(seed))
    size = (cells[0] * factors[0], cells[1] * factors[1])
    assert_labels(logits, size)


def assert_labels(logits, size):
    upsampled = semantic.upsample(logits, size)
    actual = labels_at(logits, size).long()
    assert actual.shape == (len(logits), *size)
    highest = upsampled.amax(1)
    chosen = upsampled.gather(1, actual[:, None]).squeeze(1)
    assert (highest - chosen).max() <= 1e-5 * highest.abs().max()  # a tie may go either way
    assert (actual == upsampled.argmax(1)).float().mean() > 0.999


@pytest.mark.parametrize('size', [(375, 1242), (540, 960), (512, 1000)])
@pytest.mark.parametrize('memory', [torch.contiguous_format, torch.channels_last])
def test_sizes_that_are_no_multiple_take_the_other_way(size, memory):
    logits = smooth_logits(1, 2, 16, 32).contiguous(memory_format=memory)
    assert torch.equal(labels_at(logits, size).long(), semantic.upsample(logits, size).argmax(1))
