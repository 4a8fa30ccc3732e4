from dataclasses import replace

import pytest
import torch

from tag_perception.config import ConfigError
from tag_perception.core.network import PRESETS, build_network
from tag_perception.learn.configuration import DataConfig, read_experiment

from .conftest import TRAIN

FILES = sorted(TRAIN.glob('*.yaml'))
PAPER = [path for path in FILES if 'street' not in path.stem and path.stem != 'imagenet']


@pytest.mark.parametrize('path', FILES, ids=lambda p: p.stem)
def test_every_shipped_experiment_loads(path):
    config = read_experiment(path)
    assert config.output == f'out/train/{path.stem}' or '{' not in config.output
    assert '{' not in config.init_from


def test_every_row_of_the_paper_has_its_file():
    rows = {name for name in PRESETS if name != 'tag_slim'}
    assert {path.stem for path in PAPER} == rows
    assert len(rows) == 18  # 13 systems in 14 rows of Table II and four more of Table III


@pytest.mark.parametrize('path', PAPER, ids=lambda p: p.stem)
def test_rows_differ_only_in_the_network(path):
    config = read_experiment(path)
    assert config.preset == path.stem
    assert (config.goal, config.steps, config.epochs) == ('scene', 40_000, 0)
    plain = DataConfig('cityscapes3d', batch_size=2, views=1, flip=False, jitter=0)
    assert config.data == plain  # no augmentation, the whole validation
    assert (config.optimizer.name, config.optimizer.lr) == ('adam', 2e-5)
    assert (config.optimizer.weight_decay, config.optimizer.clip_norm) == (0, 10)
    assert config.optimizer.average_decay == 0
    assert (config.schedule.kind, config.schedule.power) == ('poly', 0.9)
    assert config.schedule.warmup == 0
    assert config.loss_weights == {'detection3d': 1, 'semantic': 100, 'depth': 1}
    assert (config.depth_beta_m, config.precision) == (1, '32-true')
    has_auxiliary = path.stem.startswith(('ddrnet', 'pidnet'))
    assert config.network == replace(PRESETS[path.stem], auxiliary_heads=has_auxiliary)
    assert config.network.input_size == (1024, 2048)


@pytest.mark.parametrize('preset', PRESETS)
def test_imagenet_is_that_of_the_paper(preset):
    config = read_experiment(TRAIN / 'imagenet.yaml', [f'preset={preset}'])
    assert (config.goal, config.network.backbone) == ('imagenet', PRESETS[preset].backbone)
    assert config.network.input_size == (224, 224)
    assert (config.epochs, config.steps, config.data.batch_size) == (100, 0, 256)
    optimizer, schedule = config.optimizer, config.schedule
    assert (optimizer.name, optimizer.lr, optimizer.clip_norm) == ('sgd', 0.1, 0)
    assert (optimizer.momentum, optimizer.weight_decay) == (0.9, 1e-4)
    assert (schedule.kind, schedule.gamma, schedule.warmup) == ('steps', 0.1, 0)
    assert schedule.milestones == (0.3, 0.6, 0.9)
    assert config.output == f'out/train/imagenet_{preset}'


@pytest.mark.parametrize('path', PAPER, ids=lambda p: p.stem)
def test_every_row_starts_from_a_backbone_of_its_own_shape(path):
    config = read_experiment(path)
    preset = config.init_from.removeprefix('out/train/imagenet_').split('/')[0]
    source = read_experiment(TRAIN / 'imagenet.yaml', [f'preset={preset}'])
    assert config.init_from == f'{source.output}/best.safetensors'
    with torch.device('meta'):
        shapes = [
            {name: value.shape for name, value in network.backbone.state_dict().items()}
            for network in (build_network(config.network), build_network(source.network))
        ]
    assert shapes[0] == shapes[1]


def test_extending_merges_sections_and_the_preset_comes_first(tmp_path):
    (tmp_path / 'a.yaml').write_text('steps: 5\ndata: {batch_size: 4, flip: true}\npreset: tag\n')
    (tmp_path / 'b.yaml').write_text(
        'extends: a.yaml\ndata: {batch_size: 8}\nnetwork: {width: 16}\noutput: x/{preset}\n'
    )
    config = read_experiment(tmp_path / 'b.yaml', ['preset=tag_without_tag', 'steps=7'])
    assert (config.data.batch_size, config.data.flip, config.steps) == (8, True, 7)
    assert config.network.width == 16
    assert not config.network.channel_attention
    assert config.output == 'x/tag_without_tag'


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('steps: 5\nstep: 6', "unknown key 'step'"),
        ('steps: 5\ndata: {batch: 6}', "unknown key 'data.batch'"),
        ('steps: 5\nnetwork: {depth: 6}', "unknown key 'network.depth'"),
        ('preset: resnet', "preset 'resnet' is not one of tag"),
        ('preset: tag', 'exactly one of steps and epochs'),
        ('steps: 5\nepochs: 3', 'exactly one of steps and epochs'),
        ('steps: 5\ndevices: 4', 'not a multiple of 4'),
        ('steps: 5\noptimizer: {lr: 0}', 'lr has to be positive'),
        ('steps: 5\nloss_weights: {depth: 1.0}', 'loss_weights needs exactly'),
        ('steps: 5\nprecision: fp16', 'is not one of 32-true, bf16-mixed'),
        ('extends: missing.yaml', 'missing.yaml'),
        ('extends: x.yaml', 'extends too many files'),
        ('- 1', 'expected a mapping'),
        ('a: [', 'x.yaml'),
    ],
)
def test_a_wrong_file_is_one_clear_line(tmp_path, text, message):
    path = tmp_path / 'x.yaml'
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        read_experiment(path)
    assert message in str(error.value)
    assert str(tmp_path) in str(error.value)
    assert '\n' not in str(error.value)
