"""Every row of the paper's tables trains and is scored by its own experiment file."""

import pytest

from tag_perception.core import checkpoint
from tag_perception.data.cityscapes3d import Cityscapes3D
from tag_perception.evaluate.evaluation import evaluate
from tag_perception.evaluate.predictor import NetworkPredictor
from tag_perception.evaluate.run import evaluate_checkpoint
from tag_perception.learn.saving import CheckpointWriter
from tag_perception.learn.training import train

from .conftest import TRAIN

ROWS = sorted(
    path.name
    for path in TRAIN.glob('*.yaml')
    if 'street' not in path.stem and path.stem != 'imagenet'
)


def check_scores(results, tasks):
    assert (results['miou'] is not None) == ('semantic' in tasks)
    assert (results['rmse_m'] is not None) == ('depth' in tasks)
    assert (results['mds_amodal'] is not None) == ('detection3d' in tasks)


@pytest.mark.parametrize('row', ROWS)
def test_every_row_trains_two_steps_and_is_scored(row, tiny, tree, tmp_path, monkeypatch):
    # Moments and weights of up to 45 million parameters, to resume what is over.
    monkeypatch.setattr(CheckpointWriter, 'save_resumable', lambda *_: None)
    config = tiny('steps=2', experiment=row)
    loaded = checkpoint.load(train(config) / 'last.safetensors')
    assert loaded.config == config.network
    assert loaded.metadata['step'] == 2
    predict = NetworkPredictor(loaded.network, 'cpu')
    results = evaluate(predict, Cityscapes3D(tree, 'val'), tmp_path / 'scores', limit=1)
    check_scores(results, config.network.tasks)


@pytest.mark.slow
@pytest.mark.parametrize('row', ROWS)
def test_every_row_is_saved_in_full_and_reported(row, tiny, tree, tmp_path):
    folder = train(tiny('steps=2', 'save_every=2', experiment=row))
    weights = folder / 'last.safetensors'
    loaded = checkpoint.load(weights)
    assert loaded.config.backbone in row or loaded.config.backbone == 'tag'
    results, report = evaluate_checkpoint(str(weights), str(tree), 'val', str(tmp_path / 'scores'))
    assert report.exists()
    check_scores(results, loaded.config.tasks)
