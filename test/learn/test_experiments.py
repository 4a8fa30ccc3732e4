"""Every row of the paper's tables trains and is scored by its own experiment file."""

import pytest

from tag_perception.core import checkpoint
from tag_perception.evaluate.run import evaluate_checkpoint
from tag_perception.learn.training import train

from .conftest import TRAIN

ROWS = sorted(
    path.name
    for path in TRAIN.glob('*.yaml')
    if 'street' not in path.stem and path.stem != 'imagenet'
)
LIGHT = ('ddrnet23_slim.yaml', 'pidnet_s.yaml', 'dla34_semantic.yaml')


@pytest.mark.parametrize('row', [r for r in ROWS if r.startswith('tag') or r in LIGHT])
def test_a_light_row_trains_two_steps(row, tiny):
    train(tiny(experiment=row), dry_run=True)


@pytest.mark.slow
@pytest.mark.parametrize('row', ROWS)
def test_every_row_trains_two_steps_and_is_scored(row, tiny, tree, tmp_path):
    folder = train(tiny('steps=2', 'save_every=2', experiment=row))
    weights = folder / 'last.safetensors'
    loaded = checkpoint.load(weights)
    assert loaded.config.backbone in row or loaded.config.backbone == 'tag'
    results, report = evaluate_checkpoint(str(weights), str(tree), 'val', str(tmp_path / 'scores'))
    assert report.exists()
    tasks = loaded.config.tasks
    assert (results['miou'] is not None) == ('semantic' in tasks)
    assert (results['rmse_m'] is not None) == ('depth' in tasks)
    assert (results['mds_amodal'] is not None) == ('detection3d' in tasks)
