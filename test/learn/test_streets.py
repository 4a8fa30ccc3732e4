"""Training on streets that are rendered while it runs."""

from types import SimpleNamespace

import pytest
import torch
from cityscapesscripts.evaluation import objectDetectionHelpers
from torch.utils.data import DataLoader

from tag_perception.config import ConfigError
from tag_perception.core import checkpoint
from tag_perception.data.cityscapes3d import Cityscapes3D
from tag_perception.data.street import write_tree
from tag_perception.evaluate.evaluation import evaluate
from tag_perception.evaluate.predictor import NetworkPredictor
from tag_perception.evaluate.run import evaluate_checkpoint
from tag_perception.learn.samples import Loaders
from tag_perception.learn.sources import open_sources
from tag_perception.learn.training import train

SMALL = (
    'data.root=', 'data.render_size=[64, 128]', 'data.batch_size=2', 'data.validation_images=2',
    'loss_weights.semantic=50.0',
)  # fmt: skip


def test_rendered_streets_train_and_never_repeat(tiny, read_log):
    config = tiny(*SMALL, 'steps=3', 'validate_every=3', experiment='tag_slim_street.yaml')
    sources = open_sources(config, stride=8)
    names = [sources.training[draw]['name'] for draw in range(4)]
    held_out = [sources.validation[index]['image'] for index in range(2)]
    assert len(set(names)) == 4
    assert sources.epoch is None
    assert (held_out[0] != sources.training[0]['image']).any()
    folder = train(config)
    assert list(read_log(folder)) == [0, 1, 2]
    assert list(read_log(folder, 'validation/loss')) == [2]


def test_streets_come_from_processes_that_were_not_forked(tiny):
    """As those that render on a GPU have to be: everything that they are given can be sent."""
    config = tiny(*SMALL, experiment='tag_slim_street.yaml')
    items = open_sources(config, stride=8).training
    loader = DataLoader(items, 2, sampler=[0, 1], num_workers=1, multiprocessing_context='spawn')
    (batch,) = loader
    assert batch['name'] == [items[draw]['name'] for draw in (0, 1)]
    assert torch.equal(batch['image'][1], items[1]['image'])
    depth = items[1]['targets']['depth']['depth_m']
    assert torch.equal(
        batch['targets']['depth']['depth_m'][1].nan_to_num(-1), depth.nan_to_num(-1)
    )


@pytest.mark.parametrize('gpu', [False, True])
def test_loaders_of_a_gpu_are_told_which_one_it_is(tiny, monkeypatch, gpu):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: gpu)
    options = (*SMALL, 'data.render_device=auto', 'data.workers=2')
    config = tiny(*options, experiment='tag_slim_street.yaml')
    loaders = Loaders(config, *[[0, 1]] * 2)
    own = torch.device('cuda', 3) if gpu else torch.device('cpu')
    loaders.trainer = SimpleNamespace(
        world_size=1, global_rank=0, global_step=0, strategy=SimpleNamespace(root_device=own)
    )
    for loader in (loaders.train_dataloader(), loaders.val_dataloader()):
        assert loader.worker_init_fn.keywords == {'gpu': own}
        start = loader.multiprocessing_context
        assert (start.get_start_method() if gpu else start) == ('spawn' if gpu else None)


def test_a_tree_needs_no_gpu(tiny):
    config = tiny('data.source=street', 'data.render_device=cuda', experiment='tag.yaml')
    assert config.data.root
    assert config.data.rendered_on() == 'cpu'


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_a_training_is_fed_by_the_gpu(tiny, read_log):
    options = ('steps=3', 'data.render_device=cuda', 'data.workers=2', 'device=cuda')
    folder = train(tiny(*SMALL, *options, experiment='tag_slim_street.yaml'))
    assert list(read_log(folder)) == [0, 1, 2]


def test_streets_without_end_have_no_epochs(tiny):
    with pytest.raises(ConfigError, match='no epochs'):
        train(tiny(*SMALL, 'steps=0', 'epochs=1', experiment='tag_slim_street.yaml'))


@pytest.fixture
def lenient(monkeypatch):
    """Official scores that match boxes at an IoU of 0.2, not 0.7: cars of a few pixels."""
    strict = objectDetectionHelpers.EvaluationParameters

    def parameters(*args, **options):
        return strict(*args, **{**options, 'min_iou_to_match': 0.2})

    monkeypatch.setattr(objectDetectionHelpers, 'EvaluationParameters', parameters)


def test_a_very_short_training_improves_all_scores_on_held_out_streets(tiny, tmp_path, lenient):
    streets = tmp_path / 'streets'
    write_tree(streets, 0, 80, (64, 128), 'train', progress=False)
    write_tree(streets, 1, 12, (64, 128), 'val', progress=False)
    options = (
        f'data.root={streets}', 'data.batch_size=4', 'data.jitter=0.0', 'optimizer.lr=0.006',
        'optimizer.average_decay=0.9', 'schedule.warmup=10', 'validate_every=1000',
        'save_every=1000', 'log_every=50', 'loss_weights.detection3d=4.0',
    )  # fmt: skip
    scores = []
    for steps in (1, 200):
        where = (f'steps={steps}', f'output={tmp_path}/{steps}')
        weights = train(tiny(*options, *where, experiment='tag_slim_street.yaml'))
        predict = NetworkPredictor(checkpoint.load(weights / 'last.safetensors').network, 'cpu')
        scores.append(evaluate(predict, Cityscapes3D(streets, 'val'), tmp_path / f'scores{steps}'))
    before, after = scores
    assert after['miou'] > before['miou'] + 0.08
    assert after['rmse_m'] < 0.8 * before['rmse_m']
    assert after['car_ds_modal'] > before['car_ds_modal'] + 0.02


@pytest.mark.slow
def test_a_short_training_improves_all_scores_on_held_out_streets(tiny, tmp_path):
    size = (128, 256)
    write_tree(tmp_path / 'streets', 0, 32, size, 'train', progress=False)
    write_tree(tmp_path / 'streets', 1, 12, size, 'val', progress=False)
    options = (
        f'data.root={tmp_path}/streets', 'network.input_size=[128, 256]', 'network.width=16',
        'data.batch_size=8', 'validate_every=1000', 'optimizer.lr=0.003', 'data.jitter=0.0',
    )  # fmt: skip
    scores = {}
    for steps in (1, 400):
        config = tiny(
            *options, f'steps={steps}', f'output={tmp_path}/{steps}',
            experiment='tag_slim_street.yaml',
        )  # fmt: skip
        weights = train(config) / 'last.safetensors'
        out = str(tmp_path / f'scores{steps}')
        scores[steps], _ = evaluate_checkpoint(str(weights), f'{tmp_path}/streets', 'val', out)
    before, after = scores[1], scores[400]
    assert after['miou'] > before['miou'] + 0.1
    assert after['rmse_m'] < 0.7 * before['rmse_m']
    assert after['car_ds_modal'] > (before['car_ds_modal'] or 0)
