"""Semantic segmentation: loss by hand, void pixels, decoding to the image, learning."""

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import one_hot

from tag_perception.core.structures import Camera, Sample, View
from tag_perception.core.tasks import semantic


def sample(labels: np.ndarray | None) -> Sample:
    image = np.zeros((32, 64, 3), np.uint8)
    return Sample('a', image, Camera(64, 32, 60.0, 60.0, 32.0, 16.0), semantic=labels)


def view(image_size: tuple[int, int], input_size: tuple[int, int]) -> View:
    return View(torch.ones(1, 4), image_size, input_size)


def test_cross_entropy_by_hand():
    """Two labelled pixels of four: -log softmax of the true class, averaged over the two."""
    output = torch.zeros(1, 19, 2, 2)
    output[0, 3, 0, 0] = math.log(18)  # p = 1/2 for class 3, 1/36 for every other
    target = {'train_id': torch.tensor([[[3, 7], [255, 255]]], dtype=torch.uint8)}
    terms = semantic.loss(output, target)
    assert terms.keys() == {'cross_entropy'}
    expected = (math.log(2) + math.log(19)) / 2
    assert terms['cross_entropy'].item() == pytest.approx(expected, rel=1e-6)


def test_loss_is_taken_at_label_resolution():
    """Bilinear between cells of -5 and 5: of 8 pixels in a row, 4 are right and 4 wrong."""
    output = torch.zeros(1, 19, 1, 2)
    output[0, 0] = torch.tensor([[-5.0, 5.0]])
    target = {'train_id': torch.zeros(1, 4, 8, dtype=torch.uint8)}
    along_row = [-5, -5, -3.75, -1.25, 1.25, 3.75, 5, 5]
    expected = sum(math.log(1 + 18 * math.exp(-x)) for x in along_row) / 8
    assert semantic.loss(output, target)['cross_entropy'].item() == pytest.approx(expected, 1e-5)


def test_all_void_gives_no_loss_and_no_gradient():
    output = torch.randn(2, 19, 4, 8, requires_grad=True)
    target = {'train_id': torch.full((2, 32, 64), 255, dtype=torch.uint8)}
    value = semantic.loss(output, target)['cross_entropy']
    value.backward()
    assert value.item() == 0
    assert torch.equal(output.grad, torch.zeros_like(output))


def test_encode_keeps_labels_and_wants_some():
    labels = np.random.default_rng(0).integers(0, 19, (32, 64)).astype(np.uint8)
    assert (semantic.encode_target(sample(labels), 8)['train_id'].numpy() == labels).all()
    with pytest.raises(ValueError, match='a has no semantic labels'):
        semantic.encode_target(sample(None), 8)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize('image_size', [(32, 64), (64, 128), (45, 83)])
def test_decode_returns_the_labels(dtype, image_size):
    """Confident cells come out as rectangles of the image, whatever its size and the precision."""
    cells = torch.randint(0, 19, (2, 4, 8), generator=torch.Generator().manual_seed(0))
    output = (20.0 * one_hot(cells, 19).permute(0, 3, 1, 2)).to(dtype)
    decoded = semantic.decode(output, view(image_size, (32, 64)))
    assert decoded.shape == (2, *image_size)
    assert decoded.dtype == torch.uint8
    rows = (np.arange(4) + 0.5) * image_size[0] / 4
    columns = (np.arange(8) + 0.5) * image_size[1] / 8
    centres = decoded[:, rows.astype(int)][:, :, columns.astype(int)]
    assert torch.equal(centres.long(), cells)


def test_head_overfits_one_sample():
    torch.manual_seed(0)
    head = semantic.Head(16, 32)
    features = torch.randn(1, 16, 4, 8)
    cells = torch.randint(0, 19, (4, 8))
    labels = cells.repeat_interleave(8, 0).repeat_interleave(8, 1).numpy().astype(np.uint8)
    labels[0] = 255
    target = {k: v[None] for k, v in semantic.encode_target(sample(labels), 8).items()}
    optimizer = torch.optim.Adam(head.parameters(), 1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        semantic.loss(head(features), target)['cross_entropy'].backward()
        optimizer.step()
    decoded = semantic.decode(head(features), view((32, 64), (32, 64)))
    interior = torch.zeros(8, dtype=torch.bool)
    interior[3:5] = True  # the middle of each cell, where bilinear blending does not reach
    inside = interior.repeat(4)[:, None] & interior.repeat(8)[None]
    assert (decoded[0] == torch.from_numpy(labels))[inside].float().mean() > 0.98
