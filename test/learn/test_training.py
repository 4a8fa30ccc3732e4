import errno
import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from tag_perception.config import ConfigError, InputError
from tag_perception.core import checkpoint
from tag_perception.core.checkpoint import CheckpointError
from tag_perception.core.network import build_network
from tag_perception.learn.configuration import OptimizerConfig
from tag_perception.learn.module import SceneModule
from tag_perception.learn.objective import NonFiniteLoss
from tag_perception.learn.training import initialise, train

from .conftest import TINY, TRAIN


class PowerCutError(Exception):
    """Stands for whatever kills the process: nothing after it runs."""


@pytest.fixture
def power_cut(monkeypatch):
    """power_cut(step): the next training dies in that step; power_cut(None): no more."""
    original = SceneModule.training_step

    def at(step: int | None) -> None:
        def training_step(self, batch, index):
            if self.global_step == step:
                raise PowerCutError
            return original(self, batch, index)

        monkeypatch.setattr(SceneModule, 'training_step', training_step)

    return at


def test_a_killed_training_resumes_to_the_same_loss_curve(tiny, tmp_path, power_cut, read_log):
    options = ('steps=9', 'save_every=2', 'validate_every=3', 'optimizer.average_decay=0.9')
    whole = train(tiny(*options, 'data.flip=true', 'data.jitter=0.1', f'output={tmp_path}/whole'))
    config = tiny(*options, 'data.flip=true', 'data.jitter=0.1')
    for step in (5, 7):
        power_cut(step)
        with pytest.raises(PowerCutError):
            train(config)
    power_cut(None)
    killed = train(config)
    assert len(list((killed / 'csv').iterdir())) == 3
    expected = read_log(whole)
    assert list(expected) == list(range(9))
    assert len(set(expected.values())) == 9
    assert read_log(killed) == expected
    assert read_log(killed, 'train/lr') == read_log(whole, 'train/lr')
    assert read_log(killed, 'validation/loss') == read_log(whole, 'validation/loss')
    for name in ('last.safetensors', 'best.safetensors'):
        one, other = (checkpoint.load(f / name) for f in (whole, killed))
        assert one.metadata['step'] == other.metadata['step']
        for key, value in one.network.state_dict().items():
            torch.testing.assert_close(other.network.state_dict()[key], value, rtol=0, atol=0)


def test_the_checkpoint_says_where_it_comes_from(tiny):
    folder = train(tiny('steps=4', 'data.batch_size=4', 'validate_every=2'))
    loaded = checkpoint.load(folder / 'last.safetensors')
    assert loaded.config.width == 8
    assert loaded.metadata['step'] == 4
    assert loaded.metadata['images'] == 16
    assert loaded.metadata['experiment']['optimizer']['lr'] == 0.001
    assert loaded.metadata['git_revision']
    assert json.dumps(loaded.metadata)
    assert checkpoint.load(folder / 'best.safetensors').metadata['best_validation_loss'] > 0


def test_a_finished_run_is_left_as_it_is_and_can_be_prolonged(tiny, read_log):
    folder = train(tiny('steps=2'))
    before = (folder / 'last.safetensors').read_bytes()
    train(tiny('steps=2'))
    assert (folder / 'last.safetensors').read_bytes() == before
    train(tiny('steps=4'))
    assert list(read_log(folder)) == [0, 1, 2, 3]


def test_the_average_is_kept_apart_from_the_moving_weights(tiny):
    config = tiny('steps=3', 'optimizer.average_decay=0.5', 'optimizer.lr=0.01')
    folder = train(config)
    state = torch.load(folder / 'last.ckpt', weights_only=True)['state_dict']
    kept = checkpoint.load(folder / 'last.safetensors').network.state_dict()
    name = 'heads.depth.0.weight'
    torch.testing.assert_close(kept[name], state[f'average.module.{name}'])
    assert not torch.equal(kept[name], state[f'network.{name}'])


def test_a_dry_run_leaves_nothing(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train(tiny('steps=100'), dry_run=True)
    assert list(tmp_path.iterdir()) == []


def test_another_run_in_the_folder_is_one_clear_line(tiny):
    folder = train(tiny('steps=1'))
    with pytest.raises(ConfigError, match=r'holds a run with optimizer\.lr 0\.001, not 0\.01'):
        train(tiny('steps=1', 'optimizer.lr=0.01'))
    with pytest.raises(ConfigError, match=r'holds a run with network\.width 8, not 16'):
        train(tiny('steps=1', 'network.width=16'))
    (folder / 'last.ckpt').write_bytes(b'nonsense')
    with pytest.raises(CheckpointError, match=r'last\.ckpt: cannot be read'):
        train(tiny('steps=1'))


@pytest.mark.parametrize('name', ['.last.ckpt.partial', '.last.safetensors.partial'])
def test_a_full_disk_leaves_the_last_good_checkpoint(tiny, monkeypatch, name):
    folder = train(tiny('steps=2', 'save_every=2'))
    good = {n: (folder / n).read_bytes() for n in ('last.ckpt', 'last.safetensors')}
    move = os.replace

    def full(source, target):
        if os.path.basename(source) == name:
            raise OSError(errno.ENOSPC, 'No space left on device')
        move(source, target)

    monkeypatch.setattr(os, 'replace', full)
    with pytest.raises(InputError, match='No space left on device') as error:
        train(tiny('steps=4', 'save_every=2'))
    assert '\n' not in str(error.value)
    kept = ('last.ckpt',) if 'ckpt' in name else ('last.ckpt', 'last.safetensors')
    for n in kept:
        assert (folder / n).read_bytes() == good[n]
    checkpoint.load(folder / 'last.safetensors')
    assert not (folder / name).exists()
    monkeypatch.undo()
    train(tiny('steps=4', 'save_every=2'))
    assert checkpoint.load(folder / 'last.safetensors').metadata['step'] == 4


def test_a_non_finite_loss_stops_and_keeps_what_was_saved(tiny, monkeypatch):
    train(tiny('steps=2'))
    original = SceneModule.terms

    def terms(self, network, batch):
        found = original(self, network, batch)
        found['depth/smooth_l1'] = found['depth/smooth_l1'] * float('nan')
        return found

    monkeypatch.setattr(SceneModule, 'terms', terms)
    with pytest.raises(NonFiniteLoss, match=r'depth smooth_l1 .* step 2, batch of testburg_'):
        train(tiny('steps=4'))
    monkeypatch.undo()
    folder = train(tiny('steps=3'))
    assert checkpoint.load(folder / 'last.safetensors').metadata['step'] == 3


def test_a_run_starts_from_given_weights(tiny, tmp_path):
    first = train(tiny('steps=1', f'output={tmp_path}/first'))
    config = replace(tiny('steps=1'), init_from=str(first / 'last.safetensors'))
    still = replace(config.optimizer, lr=1e-12)
    second = train(replace(config, optimizer=still))
    one, other = (checkpoint.load(f / 'last.safetensors').network for f in (first, second))
    for (name, a), b in zip(one.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, msg=name)


def test_weights_of_another_network_are_one_clear_line(tiny, tmp_path):
    other = train(tiny('steps=1', 'network.width=16', f'output={tmp_path}/other'))
    with pytest.raises(CheckpointError, match=r'of another network \(tag, width 16\)'):
        train(tiny('steps=1', f'init_from={other}/last.safetensors'))
    with pytest.raises(CheckpointError, match=r'missing\.safetensors.*init_from='):
        train(tiny('steps=1', 'init_from=missing.safetensors'))


def test_imagenet_gives_its_backbone_alone(tiny, tmp_path):
    config = tiny('steps=1').network
    torch.manual_seed(1)
    source = build_network(replace(config, imagenet_classifier=True, tasks=('semantic',)))
    path = tmp_path / 'imagenet.safetensors'
    checkpoint.save(path, source, source.config, {'goal': 'imagenet'})
    torch.manual_seed(2)
    network = build_network(config)
    head = network.heads['semantic'][0].weight.clone()
    initialise(network, str(path))
    for name, value in network.backbone.state_dict().items():
        torch.testing.assert_close(value, source.backbone.state_dict()[name])
    torch.testing.assert_close(network.heads['semantic'][0].weight, head)


@pytest.mark.parametrize(
    ('overrides', 'message'),
    [
        (('data.root=/nowhere',), 'no folder leftImg8bit'),
        (('data.source=imagenet',), 'cannot be trained on imagenet data'),
        (('goal=imagenet',), 'cannot be trained on cityscapes3d data'),
    ],
)
def test_missing_data_are_one_clear_line(tiny, overrides, message):
    with pytest.raises(InputError, match=message):
        train(tiny('steps=1', *overrides))


def test_optimizers_are_what_they_are_called(tiny):
    config = tiny('steps=1')
    network = build_network(config.network)
    for name in ('adam', 'adamw', 'sgd'):
        options = OptimizerConfig(name, lr=0.1, weight_decay=1e-4)
        module = SceneModule(replace(config, optimizer=options), network, steps=10)
        built = module.configure_optimizers()['optimizer']
        assert type(built).__name__.lower() == name
        group = built.param_groups[0]
        assert group['weight_decay'] == 1e-4
        assert len(group['params']) == len(list(network.parameters()))
        if name == 'sgd':
            assert group['nesterov'] is True


@pytest.mark.slow
def test_two_processes_share_the_work(tree, tmp_path):
    """Lightning's DDP on two CPU processes: as many steps as alone, each image once."""
    overrides = [*TINY, f'data.root={tree}', 'network.width=8', 'steps=3', 'save_every=3']
    command = [sys.executable, '-m', 'tag_perception', 'train', str(TRAIN / 'tag.yaml')]
    alone, both = tmp_path / 'alone', tmp_path / 'both'
    for folder, devices in ((alone, 1), (both, 2)):
        options = [f'output={folder}', f'devices={devices}', 'data.batch_size=4']
        done = subprocess.run(
            [*command, *overrides, *options], capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr[-2000:]
    one, other = (checkpoint.load(f / 'last.safetensors') for f in (alone, both))
    assert one.metadata['step'] == other.metadata['step'] == 3
    assert one.metadata['images'] == other.metadata['images'] == 12
    for value in other.network.state_dict().values():
        assert value.isfinite().all()
