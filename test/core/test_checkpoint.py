import json
import struct
from dataclasses import replace

import pytest
import torch

from tag_perception.core import checkpoint
from tag_perception.core.checkpoint import CheckpointError
from tag_perception.core.network import PRESETS, build_network


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    config = replace(PRESETS['tag_slim'], input_size=(64, 128))
    torch.manual_seed(1)
    network = build_network(config).eval()
    path = tmp_path_factory.mktemp('checkpoint') / 'a.safetensors'
    checkpoint.save(path, network, config, {'step': 7, 'scores': {'miou': 0.5}})
    return path, network, config


def test_a_checkpoint_rebuilds_its_network(saved):
    path, network, config = saved
    loaded = checkpoint.load(path)
    assert loaded.config == config
    assert loaded.metadata == {'step': 7, 'scores': {'miou': 0.5}}
    assert len(loaded.sha256) == 64
    image = torch.rand(1, 3, 64, 128)
    with torch.no_grad():
        expected, actual = network(image), loaded.network(image)
    assert expected.keys() == actual.keys()
    for key in expected:
        assert torch.equal(expected[key], actual[key])


def test_half_precision_weights_are_read_back_as_float32(saved, tmp_path):
    path, network, config = saved
    small = tmp_path / 'half.safetensors'
    checkpoint.save(small, network, config, {}, dtype=torch.float16)
    assert small.stat().st_size < 0.55 * path.stat().st_size
    for name, value in checkpoint.load(small).network.state_dict().items():
        assert value.dtype == network.state_dict()[name].dtype
        assert torch.allclose(value, network.state_dict()[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('keep', [0, 4, 8, 100, -1, -1000])
def test_a_truncated_file_is_named(saved, tmp_path, keep):
    short = tmp_path / 'short.safetensors'
    short.write_bytes(saved[0].read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r'short\.safetensors: '):
        checkpoint.load(short)


def test_missing_and_foreign_files_are_named(tmp_path):
    with pytest.raises(CheckpointError, match=r'none\.safetensors: cannot read'):
        checkpoint.load(tmp_path / 'none.safetensors')
    with pytest.raises(CheckpointError, match='cannot read'):
        checkpoint.load(tmp_path)
    from safetensors.torch import save_file

    save_file({'a': torch.zeros(3)}, tmp_path / 'foreign.safetensors')
    with pytest.raises(CheckpointError, match='not a checkpoint of this package'):
        checkpoint.load(tmp_path / 'foreign.safetensors')


def rewrite_header(source, target, change):
    data = source.read_bytes()
    (length,) = struct.unpack('<Q', data[:8])
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    target.write_bytes(struct.pack('<Q', len(text)) + text + data[8 + length :])


@pytest.mark.parametrize(
    ('key', 'value'),
    [('width', 'wide'), ('no_such_option', 1), ('input_size', [10, 10]), ('backbone', 'vit')],
)
def test_an_unknown_configuration_is_one_clear_line(saved, tmp_path, key, value):
    def change(header):
        config = json.loads(header['__metadata__']['network'])
        header['__metadata__']['network'] = json.dumps({**config, key: value})

    bad = tmp_path / 'bad.safetensors'
    rewrite_header(saved[0], bad, change)
    with pytest.raises(CheckpointError, match=r'bad\.safetensors: ') as error:
        checkpoint.load(bad)
    assert '\n' not in str(error.value)


def test_a_tensor_of_absurd_size_is_refused_before_memory_is_taken(saved, tmp_path):
    def change(header):
        name = next(n for n in header if n.endswith('weight'))
        header[name]['shape'] = [1 << 20, 1 << 20]
        header[name]['data_offsets'] = [0, 1 << 42]

    bad = tmp_path / 'huge.safetensors'
    rewrite_header(saved[0], bad, change)
    with pytest.raises(CheckpointError, match='truncated'):
        checkpoint.load(bad)


def test_weights_of_another_network_are_refused(saved, tmp_path):
    other = build_network(replace(saved[2], spatial_attention=False))
    checkpoint.save(tmp_path / 'other.safetensors', other, saved[2], {})
    with pytest.raises(CheckpointError, match='do not fit'):
        checkpoint.load(tmp_path / 'other.safetensors')


def test_a_failed_save_keeps_the_last_good_file(saved, tmp_path, monkeypatch):
    path = tmp_path / 'last.safetensors'
    checkpoint.save(path, saved[1], saved[2], {'step': 1})

    def full(weights, file, metadata):
        file.write_bytes(b'half')
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(checkpoint, 'save_file', full)
    with pytest.raises(CheckpointError, match='No space left'):
        checkpoint.save(path, saved[1], saved[2], {'step': 2})
    assert checkpoint.load(path).metadata['step'] == 1
    assert [p.name for p in tmp_path.iterdir()] == ['last.safetensors']
