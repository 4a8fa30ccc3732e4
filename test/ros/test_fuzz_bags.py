"""Bags that are cut off, damaged or foreign: read as far as they go, or refused in one line."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tag_perception.config import InputError
from tag_perception.ros.bag import make_bag, process_bag
from tag_perception.ros.storage import BagReader

from ..fuzz.cases import assert_one_line, cases, memory_taken
from ..fuzz.mutations import damaged
from .fakes import FakeEngine
from .test_bag import frames

PLENTY = 256 * 2**20


@pytest.fixture(scope='module')
def bags(tmp_path_factory) -> dict[str, Path]:
    """A small bag of each kind, and in each the file that holds the messages."""
    folder = tmp_path_factory.mktemp('bags')
    make_bag(frames(3), folder / 'one.mcap')
    make_bag(frames(3), folder / 'mcap', storage='mcap')
    make_bag(frames(3), folder / 'sqlite3', storage='sqlite3')
    return {
        'file': folder / 'one.mcap',
        'mcap': next((folder / 'mcap').glob('*.mcap')),
        'sqlite3': next((folder / 'sqlite3').glob('*.db3')),
        'metadata': folder / 'mcap' / 'metadata.yaml',
    }


def read(path: Path) -> int:
    """The number of messages until the end or the damage, each decoded."""
    count = 0
    try:
        with BagReader(path) as reader:
            for topic, _, data in reader.messages():
                reader.decode(topic, data)
                count += 1
    except InputError as error:
        assert_one_line(error)
    return count


@cases(120)
@given(data=st.data(), kind=st.sampled_from(['file', 'mcap', 'sqlite3', 'metadata']))
def test_damaged_bags_are_read_as_far_as_they_go(bags, tmp_path_factory, data, kind):
    good = bags[kind]
    folder = tmp_path_factory.mktemp('damaged')
    path = folder / good.name
    if kind != 'file':
        path = shutil.copytree(good.parent, folder / 'bag') / good.name
    path.write_bytes(data.draw(damaged(good.read_bytes(), hot=512)))
    with memory_taken() as peak:
        read(path if kind == 'file' else path.parent)
    assert peak() < PLENTY
    shutil.rmtree(folder)


@cases(60)
@given(data=st.data())
def test_what_was_made_of_a_damaged_bag_is_not_lost(bags, tmp_path_factory, data):
    """Every frame that could be read is in the output bag, which is readable, with its results."""
    folder = tmp_path_factory.mktemp('processed')
    source, output = folder / 'in.mcap', folder / 'out.mcap'
    source.write_bytes(data.draw(damaged(bags['file'].read_bytes(), hot=512)))
    engine = FakeEngine()
    try:
        counts = process_bag(source, output, engine)
        assert counts.processed == len(engine.images)
    except InputError as error:
        assert_one_line(error)
    if output.exists():
        with BagReader(output) as reader:
            assert reader.counts.get('/perception/depth/image', 0) == len(engine.images)
        assert read(output) == sum(reader.counts.values())
    shutil.rmtree(folder)


@cases(60)
@given(content=st.binary(max_size=300), magic=st.sampled_from([b'', b'\x89MCAP0\r\n', b'SQLite']))
def test_foreign_files(tmp_path, content, magic):
    for name in ('bag.mcap', 'bag.db3', 'bag'):
        (tmp_path / name).write_bytes(magic + content)
        assert read(tmp_path / name) == 0
