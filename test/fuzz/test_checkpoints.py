"""Checkpoints that are cut off, damaged, absurd or foreign: one clear line, no memory taken."""

from __future__ import annotations

import json
import struct

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from tag_perception.config import to_dict
from tag_perception.core import checkpoint
from tag_perception.core.checkpoint import FORMAT, CheckpointError
from tag_perception.core.network import NetworkConfig, build_network

from .cases import assert_one_line, cases, memory_taken
from .mutations import JSON_VALUES, damaged, mutated

PLENTY = 64 * 2**20
"""Bytes that a refusal may cost: a dozen times the file."""


@pytest.fixture(scope='module')
def good(tmp_path_factory):
    """A small network's file, its header and the bytes of its weights."""
    config = NetworkConfig(width=4, input_size=(32, 64))
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp('good') / 'good.safetensors'
    checkpoint.save(path, build_network(config), config, {'step': 1})
    data = path.read_bytes()
    (length,) = struct.unpack('<Q', data[:8])
    return path, json.loads(data[8 : 8 + length]), data[8 + length :]


def load(path) -> checkpoint.Checkpoint | None:
    """The checkpoint, or None if it is refused in one line that names the file."""
    try:
        return checkpoint.load(path)
    except CheckpointError as error:
        assert_one_line(error, path)
        return None


def write(path, header, weights: bytes) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack('<Q', len(text)) + text + weights)


@cases(80)
@given(data=st.data())
def test_damaged_files(good, tmp_path, data):
    path = tmp_path / 'damaged.safetensors'
    path.write_bytes(data.draw(damaged(good[0].read_bytes(), hot=4096)))
    loaded = load(path)
    if loaded is not None:  # only weights were hit: the network is still the one described
        assert {n: t.shape for n, t in loaded.network.state_dict().items()} == {
            n: t.shape for n, t in build_network(loaded.config).state_dict().items()
        }


@cases(60)
@given(data=st.data())
def test_altered_headers(good, tmp_path, data):
    path = tmp_path / 'altered.safetensors'
    write(path, data.draw(mutated(good[1])), good[2])
    load(path)


@cases(100)
@given(data=st.data())
def test_absurd_configurations(good, tmp_path, data):
    header = json.loads(json.dumps(good[1]))
    header['__metadata__']['network'] = json.dumps(
        data.draw(mutated(to_dict(NetworkConfig(width=4, input_size=(32, 64)))))
    )
    path = tmp_path / 'absurd.safetensors'
    write(path, header, good[2])
    with memory_taken() as peak:
        load(path)
    assert peak() < PLENTY


@cases(40)
@given(text=st.text() | JSON_VALUES.map(json.dumps))
def test_foreign_metadata(tmp_path, text):
    path = tmp_path / 'foreign.safetensors'
    header = {'format': FORMAT, 'network': text, 'metadata': text}
    save_file({'a': torch.zeros(3)}, path, {k: v.replace('\0', '') for k, v in header.items()})
    assert load(path) is None


@pytest.mark.parametrize('depth', [1_000, 100_000])
@pytest.mark.parametrize('where', ['header', 'network', 'metadata'])
def test_nested_without_end(good, tmp_path, depth, where):
    deep = '[' * depth + ']' * depth
    path = tmp_path / 'deep.safetensors'
    if where == 'header':
        write(path, deep.encode(), b'')
    else:
        header = json.loads(json.dumps(good[1]))
        header['__metadata__'][where] = deep
        write(path, header, good[2])
    if where != 'metadata' or depth > 1_000:  # shallow free metadata are nobody's business
        assert load(path) is None


def test_a_header_as_large_as_a_disk_is_not_read(tmp_path):
    """A sparse file: its size is true, so only the header's own limit stops the reading."""
    path = tmp_path / 'sparse.safetensors'
    with path.open('wb') as file:
        file.write(struct.pack('<Q', 2**36))
        file.truncate(2**36 + 8)
    with memory_taken() as peak:
        assert load(path) is None
    assert peak() < PLENTY


def test_tensors_as_large_as_a_disk_are_not_read(good, tmp_path):
    """Shape, offsets and file size agree on a terabyte; the network needs a few kilobytes."""
    header = json.loads(json.dumps(good[1]))
    last = max((n for n in header if n[:2] != '__'), key=lambda n: header[n]['data_offsets'][1])
    begin = header[last]['data_offsets'][0]
    header[last].update(dtype='U8', shape=[2**38], data_offsets=[begin, begin + 2**38])
    path = tmp_path / 'sparse.safetensors'
    write(path, header, good[2])
    with path.open('r+b') as file:
        file.truncate(8 + len(json.dumps(header)) + begin + 2**38)
    with memory_taken() as peak:
        assert load(path) is None
    assert peak() < PLENTY


@pytest.mark.parametrize(
    'change',
    [{'input_size': [2**20, 2**20]}, {'input_size': [32, 2**40]}, {'width': 2**40}],
    ids=str,
)
def test_an_absurd_network_is_refused(good, tmp_path, change):
    header = json.loads(json.dumps(good[1]))
    network = json.loads(header['__metadata__']['network'])
    header['__metadata__']['network'] = json.dumps({**network, **change})
    path = tmp_path / 'absurd.safetensors'
    write(path, header, good[2])
    assert load(path) is None


def test_a_pickle_is_not_opened(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / 'sprung'), 'w'))

    torch.save({'weights': Trap()}, tmp_path / 'trap.safetensors')
    assert load(tmp_path / 'trap.safetensors') is None
    assert not (tmp_path / 'sprung').exists()
