import pytest
import torch

from tag_perception.core.tasks import semantic

labelling = pytest.importorskip('tag_perception.runtime.kernels.labelling', exc_type=ImportError)


@pytest.mark.gpu
@pytest.mark.parametrize(
    ('shape', 'size'),
    [((2, 5, 3, 16), (6, 32)), ((1, 19, 2, 16), (7, 301)), ((1, 3, 9, 9), (5, 5))],
)
@pytest.mark.parametrize('memory', [torch.contiguous_format, torch.channels_last])
def test_labels_equal_the_plain_ones(device, shape, size, memory):
    torch.manual_seed(0)
    logits = torch.randn(shape, device=device)
    labels = labelling.labels_at(logits.contiguous(memory_format=memory), size)
    upsampled = semantic.upsample(logits, size)
    chosen = upsampled.gather(1, labels[:, None].long()).squeeze(1)
    assert labels.shape == (shape[0], *size)
    assert (upsampled.amax(1) - chosen).max() < 1e-5
