"""Bags that end before their time: the whole part is used, then one line and exit code 2."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sensor_msgs.msg import Image

from tag_perception import cli
from tag_perception.config import InputError
from tag_perception.core import checkpoint
from tag_perception.core.network import NetworkConfig, build_network
from tag_perception.core.structures import Camera
from tag_perception.ros.bag import make_bag, process_bag
from tag_perception.ros.cutoff import CutMcapReader
from tag_perception.ros.storage import BagReader, BagWriter, DamagedBag
from tag_perception.runtime import engine

from .fakes import FakeEngine
from .test_bag import frames

FRAMES = 12
CAMERA = Camera(512, 384, 500.0, 500.0, 255.5, 191.5)
DAMAGED = 'damaged or cut off, '


@pytest.fixture(scope='module')
def whole(tmp_path_factory) -> dict[str, Path]:
    """A bag of each storage. An MCAP chunk (1 MiB) holds two of its frames."""
    noise = np.random.default_rng(3)
    long = [
        replace(frame, image=noise.integers(0, 60, (384, 512, 3), np.uint8))
        for frame in frames(FRAMES, CAMERA, labels=False)
    ]
    folder = tmp_path_factory.mktemp('whole')
    for name, storage in (('in.mcap', 'mcap'), ('mcap', 'mcap'), ('sqlite3', 'sqlite3')):
        make_bag(long, folder / name, storage=storage)
    return {name: folder / name for name in ('in.mcap', 'mcap', 'sqlite3')}


@pytest.fixture
def cut(whole, tmp_path):
    """`cut(bag, keep)` → a copy with only the part `keep` (or all but -keep bytes) of its data."""

    def shorten(bag: str, keep: float) -> Path:
        copy = tmp_path / bag
        if whole[bag].is_dir():
            shutil.copytree(whole[bag], copy)
            (file,) = (path for path in copy.iterdir() if path.suffix != '.yaml')
        else:
            file = shutil.copy(whole[bag], copy)
        content = Path(file).read_bytes()
        Path(file).write_bytes(content[: int(keep * len(content)) if keep > 0 else int(keep)])
        return copy

    return shorten


def last_line(capsys) -> str:
    error = capsys.readouterr().err
    assert 'Traceback' not in error
    return error.replace('\r', '\n').strip().splitlines()[-1]


@pytest.mark.parametrize('bag', ['in.mcap', 'mcap'])
@pytest.mark.parametrize(('keep', 'least'), [(0.3, 2), (0.6, 6), (0.98, 10), (-37, 12), (-1, 12)])
def test_the_whole_part_of_an_mcap_is_processed_then_the_damage_is_told(
    cut, bag, keep, least, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(engine, 'Engine', FakeEngine)
    source, output = cut(bag, keep), tmp_path / 'out.mcap'
    with BagReader(source) as reader:
        count = sum(1 for _ in reader.readable({'/image'}))
    assert least <= count <= FRAMES
    assert cli.main(['process-bag', str(source), str(output)]) == 2
    line = last_line(capsys)
    assert line.startswith(f'tag_perception process-bag: {source}: {DAMAGED}')
    assert ' messages were read: ' in line
    with BagReader(output) as reader:
        assert reader.counts['/perception/depth/image'] == count
        assert sum(1 for _ in reader.messages()) == sum(reader.counts.values())


@pytest.mark.parametrize(
    ('bag', 'keep'),
    [('in.mcap', 1e-5), ('mcap', 0.05)]
    + [('sqlite3', keep) for keep in (0.001, 0.3, 0.6, 0.98, -5000, -4096, -100, -1)],
)
def test_a_bag_without_a_readable_part_is_refused_at_once(cut, bag, keep, tmp_path, capsys):
    """SQLite cannot tell what of a file that lacks a page is whole."""
    source = cut(bag, keep)
    assert cli.main(['process-bag', str(source), str(tmp_path / 'out')]) == 2
    line = last_line(capsys)
    assert line.startswith(f'tag_perception process-bag: {source}: damaged, cut off or no bag: ')
    assert not (tmp_path / 'out').exists()


def test_a_damaged_page_of_sqlite3_ends_what_can_be_read(whole, tmp_path):
    source = shutil.copytree(whole['sqlite3'], tmp_path / 'in')
    (file,) = source.glob('*.db3')
    with sqlite3.connect(file) as database:
        (page,) = database.execute('PRAGMA page_size').fetchone()
    content = bytearray(file.read_bytes())
    middle = len(content) // 2 // page * page
    content[middle : middle + 4] = b'\xff\xff\xff\xff'  # where the message goes on
    file.write_bytes(content)
    fake = FakeEngine()
    with pytest.raises(DamagedBag, match=f'{source}: {DAMAGED}.*malformed'):
        process_bag(source, tmp_path / 'out', fake)
    assert 0 < len(fake.images) < FRAMES
    with BagReader(tmp_path / 'out') as reader:
        assert reader.counts['/perception/depth/image'] == len(fake.images)


def test_a_damaged_chunk_ends_what_can_be_read(whole, tmp_path):
    index = CutMcapReader(whole['in.mcap'])
    index.open()
    content = bytearray(whole['in.mcap'].read_bytes())
    begin = index.chunks[3].chunk_start_offset
    content[begin : begin + 1000] = bytes(1000)
    source = tmp_path / 'in.mcap'
    source.write_bytes(content)
    with BagReader(source) as reader:
        assert reader.damage is None  # its index is whole
        found = [reader.decode(topic, data) for topic, _, data in reader.readable()]
        assert 0 < len(found) < sum(reader.counts.values())
        assert str(reader.damage).startswith(f'{source}: {DAMAGED}')
        with pytest.raises(DamagedBag):
            list(reader.messages())


@pytest.mark.parametrize('name', ['text.mcap', 'text.db3', 'rosbag1.bag', 'ros1.mcap', 'empty'])
def test_foreign_files_are_refused_by_every_verb(name, whole, tmp_path, capsys):
    path = tmp_path / name
    if name == 'ros1.mcap':
        path.write_bytes(whole['in.mcap'].read_bytes().replace(b'ros2', b'ros1', 1))
    elif name == 'empty':
        path.mkdir()
    else:
        path.write_bytes(b'#ROSBAG V2.0\n' * 100)
    for verb in ('play-bag', 'process-bag', 'show', 'evaluate-bag', 'demo'):
        options = {
            'process-bag': [str(path), str(tmp_path / 'out')],
            'evaluate-bag': [str(path), '--out', str(tmp_path / 'scores')],
            'demo': ['--input', str(path), '--out', str(tmp_path / 'out')],
        }
        words = [verb, *options.get(verb, [str(path)])]
        if verb in ('play-bag', 'demo'):  # they start ROS, and that only once in a process
            command = [sys.executable, '-m', 'tag_perception', *words]
            done = subprocess.run(command, capture_output=True, text=True)
            code, line = done.returncode, done.stderr.strip().splitlines()[-1]
        else:
            code, line = cli.main(words), last_line(capsys)
        assert code == 2
        assert line.startswith(f'tag_perception {verb}: {path}')
        if name == 'ros1.mcap':
            assert 'Profile is not ros2' in line
    assert [file for file in tmp_path.rglob('*') if file.is_file() and file != path] == []
    assert not (tmp_path / 'scores').exists()


def test_playing_sends_the_whole_part_then_ends_with_the_damage(cut, start, client, spin_until):
    source = cut('in.mcap', 0.6)
    stamps: list[int] = []
    client.create_subscription(
        Image, '/image', lambda image: stamps.append(image.header.stamp.nanosec), 20
    )
    with BagReader(source) as reader:
        expected = [stamp_ns % 10**9 for _, stamp_ns, _ in reader.readable({'/image'})]
    player = start('-m', 'tag_perception', 'play-bag', str(source), '--loop')
    spin_until(lambda: len(stamps) >= len(expected), client)
    assert player.wait() == 2
    assert stamps == expected  # the loop ends with the bag
    assert 'Traceback' not in player.output
    last = player.output.strip().splitlines()[-1]
    assert last.startswith(f'tag_perception play-bag: {source}: {DAMAGED}')


def test_ctrl_c_while_a_cut_bag_plays_is_no_error(cut, start, client, spin_until):
    player = start('-m', 'tag_perception', 'play-bag', str(cut('mcap', 0.9)), '--rate', '0.05')
    player.wait_for('play-bag:')
    time.sleep(0.5)
    player.end()


def test_the_demo_uses_the_whole_part_and_ends_with_the_damage(cut, start, tmp_path):
    config = NetworkConfig(width=8, input_size=(64, 128))
    small, out = tmp_path / 'small.safetensors', tmp_path / 'out'
    checkpoint.save(small, build_network(config), config, {})
    source = cut('in.mcap', 0.6)
    demo = start(
        *('-m', 'tag_perception', 'demo', '--input', str(source), '--out', str(out)),
        *('--checkpoint', str(small), '--device', 'cpu'),
    )
    assert demo.wait() == 2, demo.output
    assert 'Traceback' not in demo.output
    last = demo.output.strip().splitlines()[-1]
    assert last.startswith(f'tag_perception demo: {source}: {DAMAGED}')
    summary = json.loads((out / 'summary.json').read_text())
    assert summary['damage'] in last
    assert 6 <= summary['frames']['processed'] == summary['frames']['sent'] < FRAMES
    with BagReader(out / 'output.mcap') as reader:
        depths = sum(1 for _ in reader.messages({'/perception/depth/image'}))
    assert depths == summary['frames']['processed']


def test_a_cut_recording_is_shown_and_scored_as_far_as_it_goes(tmp_path, capsys):
    truth, results = tmp_path / 'in.mcap', tmp_path / 'whole.mcap'
    noise = np.random.default_rng(3)
    size = 384, 512
    long = [
        replace(
            frame,
            image=noise.integers(0, 60, (*size, 3), np.uint8),
            semantic=noise.integers(0, 19, size, np.uint8),
        )
        for frame in frames(FRAMES, CAMERA, labels=False)
    ]
    make_bag(long, truth)
    process_bag(truth, results, FakeEngine())
    cut, content = tmp_path / 'cut.mcap', results.read_bytes()
    cut.write_bytes(content[: len(content) // 2])
    bags = [str(cut), '--input', str(truth)]
    assert cli.main(['show', *bags, '--out', str(tmp_path / 'page.html')]) == 2
    assert last_line(capsys).startswith(f'tag_perception show: {cut}: {DAMAGED}')
    assert '<article' in (tmp_path / 'page.html').read_text()
    bags = [str(cut), '--ground-truth', str(truth)]
    assert cli.main(['evaluate-bag', *bags, '--out', str(tmp_path / 'scores')]) == 2
    assert last_line(capsys).startswith(f'tag_perception evaluate-bag: {cut}: {DAMAGED}')
    found = json.loads((tmp_path / 'scores' / 'results.json').read_text())
    assert 4 <= len(found['frames']) < FRAMES


def test_a_recording_cut_before_its_first_result_says_so(tmp_path):
    with BagWriter(tmp_path / 'in.mcap') as writer:
        for index in range(3):
            image = Image(height=512, width=1024, step=1024, encoding='mono8')
            image.data.frombytes(bytes(512 * 1024))
            writer.write('/image', image, 10**18 + index)
    content = (tmp_path / 'in.mcap').read_bytes()
    (tmp_path / 'in.mcap').write_bytes(content[:-20])
    with BagReader(tmp_path / 'in.mcap') as reader:
        assert len(list(reader.readable())) == 3
        with pytest.raises(InputError, match='cut off, 3 messages were read: File'):
            list(reader.messages())
