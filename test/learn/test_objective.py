import math

import pytest
import torch

from tag_perception.core.network import build_network
from tag_perception.core.tasks import LOSS_WEIGHTS
from tag_perception.learn.module import SceneModule
from tag_perception.learn.objective import (
    NonFiniteLoss,
    boundary_loss,
    check_finite,
    loss_terms,
    weighted_sum,
)
from tag_perception.learn.sources import open_sources


def test_terms_are_weighted_as_in_the_paper():
    terms = {
        'detection3d/heatmap': torch.tensor(1.0),
        'detection3d/depth': torch.tensor(2.0),
        'semantic/cross_entropy': torch.tensor(3.0),
        'depth/smooth_l1': torch.tensor(4.0),
        'auxiliary_depth/smooth_l1': torch.tensor(5.0),
        'boundary/cross_entropy': torch.tensor(0.1),
    }
    expected = 1 + 2 + 300 + 4 + 0.4 * 5 + 0.4 * 100 * 0.1
    assert weighted_sum(terms, LOSS_WEIGHTS, 0.4).item() == pytest.approx(expected)


def test_boundary_loss_of_a_hand_made_mask():
    train_id = torch.zeros(1, 8, 16, dtype=torch.uint8)
    train_id[:, :, 12:] = 5  # an edge inside the second cell column only
    train_id[:, :, :3] = 255
    output = torch.tensor([[[[-2.0, 1.0]]]])  # cells of 8 × 8: no edge, edge
    (value,) = boundary_loss(output, {'semantic': {'train_id': train_id}}).values()
    expected = (math.log1p(math.exp(-2)) + math.log1p(math.exp(-1))) / 2
    assert value.item() == pytest.approx(expected, rel=1e-5)


def test_boundary_of_a_void_mask_is_no_loss():
    target = {'semantic': {'train_id': torch.full((1, 8, 16), 255, dtype=torch.uint8)}}
    (value,) = boundary_loss(torch.ones(1, 1, 1, 2), target).values()
    assert value.item() == 0
    assert boundary_loss(torch.ones(1, 1, 1, 2), {}) == {}


def test_a_non_finite_loss_names_task_step_and_files():
    terms = {
        'depth/smooth_l1': torch.tensor(math.nan),
        'detection3d/heatmap': torch.tensor(1.0),
        'semantic/cross_entropy': torch.tensor(math.inf),
    }
    with pytest.raises(NonFiniteLoss) as error:
        check_finite(terms, ['aachen_000000_000019', 'bochum_000000_000313'], 17)
    message = str(error.value)
    assert 'loss depth smooth_l1, semantic cross_entropy is not finite at step 17' in message
    assert 'aachen_000000_000019, bochum_000000_000313' in message
    assert 'heatmap' not in message


@pytest.fixture
def batch(tiny):
    config = tiny()
    items = open_sources(config, stride=8).validation
    return config, torch.utils.data.default_collate([items[0], items[1]])


def test_a_batch_without_labels_has_a_finite_loss_and_gradient(batch):
    """No boxes, all void, no depth: as if every label were missing."""
    config, batch = batch
    batch['targets']['semantic']['train_id'].fill_(255)
    batch['targets']['depth']['depth_m'].fill_(math.nan)
    for name, value in batch['targets']['detection3d'].items():
        value.zero_()
        assert value.shape[0] == 2, name
    module = SceneModule(config, build_network(config.network), steps=10)
    terms = module.terms(module.network, batch)
    check_finite(terms, batch['name'], 0)
    module.total(terms).backward()
    gradients = [p.grad for p in module.network.parameters() if p.grad is not None]
    assert len(gradients) > 50
    assert all(g.isfinite().all() for g in gradients)
    assert terms['semantic/cross_entropy'] == terms['depth/smooth_l1'] == 0


def test_losses_are_computed_in_float32_whatever_the_network_gives(batch):
    config, batch = batch
    torch.manual_seed(0)
    network = build_network(config.network).eval()
    outputs = network(torch.randn(2, 3, 64, 128))
    half = {name: value.bfloat16() for name, value in outputs.items()}
    for name, value in loss_terms(half, batch['targets']).items():
        assert value.dtype == torch.float32, name
        assert value.item() == pytest.approx(
            loss_terms(outputs, batch['targets'])[name].item(), rel=0.05, abs=0.05
        )


def test_the_depth_loss_follows_the_experiment(batch, tiny):
    _, batch = batch
    values = {}
    for beta_m in (1.0, 1e6):
        torch.manual_seed(0)
        config = tiny(f'depth_beta_m={beta_m}')
        module = SceneModule(config, build_network(config.network), 1).eval()
        values[beta_m] = module.terms(module.network, batch)['depth/smooth_l1'].item()
    assert values[1e6] < 1e-3 * values[1.0]
