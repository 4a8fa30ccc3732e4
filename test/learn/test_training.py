import json
import math
import os
import resource
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from tag_perception import cli
from tag_perception import config as configuration
from tag_perception.config import ConfigError, InputError
from tag_perception.core import checkpoint
from tag_perception.core.checkpoint import CheckpointError
from tag_perception.core.network import build_network
from tag_perception.learn.configuration import OptimizerConfig
from tag_perception.learn.module import SceneModule
from tag_perception.learn.objective import NonFiniteLoss
from tag_perception.learn.saving import git_revision
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


KILLED_IN_STEP_4 = """
import os, signal, sys
from tag_perception import cli
from tag_perception.learn.module import SceneModule

original = SceneModule.training_step

def training_step(self, batch, index):
    if self.global_step == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(self, batch, index)

SceneModule.training_step = training_step
cli.main(sys.argv[1:])
"""


def test_kill_9_loses_nothing_that_comes_before_the_checkpoint(tiny, tmp_path, read_log):
    """Nothing can be tidied up, so what the curve needs is on the disk already."""
    whole = train(tiny('steps=6', 'save_every=2', f'output={tmp_path}/whole'))
    config = tiny('steps=6', 'save_every=2')
    configuration.save(config, tmp_path / 'experiment.yaml')
    command = [sys.executable, '-c', KILLED_IN_STEP_4, 'train', str(tmp_path / 'experiment.yaml')]
    environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
    done = subprocess.run(command, env=environment, capture_output=True, timeout=300)
    assert done.returncode == -signal.SIGKILL
    killed = train(config)
    assert len(list((killed / 'csv').iterdir())) == 2
    assert list(read_log(killed)) == [*range(6)]
    assert read_log(killed) == read_log(whole)
    assert list((killed / 'tensorboard').glob('events.out.tfevents.*'))


def test_the_checkpoint_says_where_it_comes_from(tiny):
    folder = train(tiny('steps=4', 'data.batch_size=4', 'validate_every=2'))
    loaded = checkpoint.load(folder / 'last.safetensors')
    assert loaded.config.width == 8
    assert loaded.metadata['step'] == 4
    assert loaded.metadata['images'] == 16
    assert loaded.metadata['experiment']['optimizer']['lr'] == 0.001
    assert loaded.metadata['experiment']['seed'] == 3
    assert loaded.metadata['git_revision'] == git_revision() != ''
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
    other = train(tiny('steps=1', 'network.width=16', f'output={folder}/other'))
    (folder / 'last.ckpt').write_bytes((other / 'last.ckpt').read_bytes())
    with pytest.raises(
        CheckpointError, match=r'last\.ckpt: of another network, network\.attention'
    ):
        train(tiny('steps=2'))
    (folder / 'last.ckpt').write_bytes(b'nonsense')
    with pytest.raises(CheckpointError, match=r'last\.ckpt: cannot be read'):
        train(tiny('steps=1'))


@pytest.fixture
def disk_with(monkeypatch):
    """disk_with(n): no file can grow beyond n bytes, as on a disk that has no more."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize('name', ['last.safetensors', 'last.ckpt'])
def test_a_full_disk_leaves_the_last_good_checkpoint(tiny, disk_with, name):
    """The weights take 2 MB, last.ckpt with the moments of Adam three times as much."""
    folder = train(tiny('steps=2', 'save_every=2'))
    good = {n: (folder / n).read_bytes() for n in ('last.ckpt', 'last.safetensors')}
    disk_with(len(good[name]) // 2)
    with pytest.raises(CheckpointError, match=f'{name}: cannot .*too large') as error:
        train(tiny('steps=4', 'save_every=2'))
    disk_with(resource.RLIM_INFINITY)
    assert '\n' not in str(error.value)
    assert (folder / 'last.ckpt').read_bytes() == good['last.ckpt']
    if name == 'last.safetensors':
        assert (folder / name).read_bytes() == good[name]
    checkpoint.load(folder / 'last.safetensors')
    assert not list(folder.glob('.*'))
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


def test_the_verb_ends_with_one_line_that_names_task_and_files(tiny, tmp_path, capfd):
    """A rate that throws the weights far away; the loss of the next batch is NaN."""
    wild = replace(tiny('steps=5').optimizer, lr=1e30, clip_norm=0.0)
    configuration.save(replace(tiny('steps=5'), optimizer=wild), tmp_path / 'experiment.yaml')
    assert cli.main(['train', str(tmp_path / 'experiment.yaml')]) == 2
    last = capfd.readouterr().err.strip().splitlines()[-1]
    assert last.startswith('tag_perception train: the loss ')
    assert 'semantic cross_entropy' in last
    assert 'is not finite at step 1, batch of testburg_' in last


def test_weights_that_a_step_has_spoiled_are_not_saved(tiny, monkeypatch):
    folder = train(tiny('steps=2'))
    good = (folder / 'last.ckpt').read_bytes()
    original = SceneModule.optimizer_step

    def optimizer_step(self, *args, **options):
        original(self, *args, **options)
        self.network.heads['depth'][0].weight.data[0] = math.inf

    monkeypatch.setattr(SceneModule, 'optimizer_step', optimizer_step)
    with pytest.raises(NonFiniteLoss, match=r'heads\.depth\.0\.weight is not finite after step 3'):
        train(tiny('steps=3'))
    assert (folder / 'last.ckpt').read_bytes() == good


def test_the_gradient_is_cut_to_its_largest_norm(tiny, tmp_path, monkeypatch):
    norms = []
    original = SceneModule.optimizer_step

    def optimizer_step(self, epoch, batch, optimizer, closure):
        original(self, epoch, batch, optimizer, closure)
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        norms.append(torch.nn.utils.get_total_norm(gradients).item())

    monkeypatch.setattr(SceneModule, 'optimizer_step', optimizer_step)
    for limit in (0.0, 0.5):
        train(tiny('steps=1', f'optimizer.clip_norm={limit}', f'output={tmp_path}/{limit}'))
    assert norms[0] > 1
    assert norms[1] == pytest.approx(0.5, rel=1e-3)


def test_bf16_trains_near_fp32(tiny, tmp_path, read_log):
    losses = [
        read_log(train(tiny('steps=2', f'precision={name}', f'output={tmp_path}/{name}')))[0]
        for name in ('32-true', 'bf16-mixed')
    ]
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


@pytest.mark.parametrize(
    ('overrides', 'message'),
    [
        (('precision=16-mixed',), '16-mixed needs a CUDA device'),
        (
            ('data.source=street', 'data.root=', 'data.render_device=cuda'),
            'data.render_device cuda: .* no CUDA device; set it to auto or cpu',
        ),
        (('device=cuda', 'devices=64', 'data.batch_size=64'), r'devices 64: .* CUDA devices'),
    ],
)
def test_what_the_machine_cannot_do_is_one_clear_line(tiny, overrides, message):
    with pytest.raises(ConfigError, match=message):
        train(tiny('steps=1', *overrides))


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
    """Lightning's DDP on two CPU processes: the weights are those of one that takes turns."""
    overrides = [*TINY, f'data.root={tree}', 'network.width=8', 'steps=4', 'data.batch_size=2']
    command = [sys.executable, '-m', 'tag_perception', 'train', str(TRAIN / 'tag.yaml')]
    turns, both = tmp_path / 'turns', tmp_path / 'both'
    for folder, parts in ((turns, 'accumulate=2'), (both, 'devices=2')):
        done = subprocess.run(
            [*command, *overrides, parts, f'output={folder}'],
            env={**os.environ, 'OMP_NUM_THREADS': '1'},
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr[-2000:]
    one, other = (checkpoint.load(f / 'last.safetensors') for f in (turns, both))
    assert one.metadata['step'] == other.metadata['step'] == 4
    assert one.metadata['images'] == other.metadata['images'] == 8
    expected = dict(one.network.named_parameters())  # batch norm statistics are of one process
    for name, value in other.network.named_parameters():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-6, msg=name)
