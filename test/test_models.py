"""The weights in models/: what a start without arguments runs."""

from __future__ import annotations

import pytest

from tag_perception.core import checkpoint
from tag_perception.data.street.tree import write_tree
from tag_perception.evaluate.run import evaluate_checkpoint
from tag_perception.runtime.engine import SHIPPED, Engine, EngineConfig
from tag_perception.share import shared_file

LARGEST_BYTES = 20e6
HEADLINE = {'miou': '.3f', 'rmse_m': '.2f', 'car_ds_amodal': '.3f', 'mds_amodal': '.3f'}


@pytest.fixture(params=SHIPPED.values())
def weights(request):
    return shared_file('models', request.param)


def test_the_card_states_the_scores_and_the_hash_of_the_file(weights):
    loaded = checkpoint.load(weights)
    card = shared_file('models', 'README.md').read_text()
    assert loaded.sha256 in card
    for name, form in HEADLINE.items():
        assert format(loaded.metadata['scores'][name], form) in card, name
    assert weights.stat().st_size <= LARGEST_BYTES


def test_they_see_streets_they_were_never_trained_on(weights, tmp_path):
    """Loosely, on eight frames: a preprocessing or decoding that changed would fail by far."""
    write_tree(tmp_path / 'streets', seed=1000, frames=8, size=(512, 1024), split='val')
    results, _ = evaluate_checkpoint(
        str(weights), str(tmp_path / 'streets'), split='val', out=tmp_path / 'out', device='cpu'
    )
    assert results['miou'] > 0.5
    assert results['rmse_m'] < 7
    assert results['car_ds_amodal'] > 0.15


def test_a_start_without_arguments_runs_them():
    engine = Engine(EngineConfig(device='cpu', backend='torch', precision='fp32'))
    assert engine.status.trained
    assert SHIPPED['tag_slim'] in engine.status.checkpoint
    engine.close()
