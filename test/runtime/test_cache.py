import logging
import os

import pytest

from tag_perception.runtime import cache

from ..fuzz.cases import memory_taken

VERSIONS = {'torch': '2', 'network code': 'abc'}


class Maker:
    def __init__(self, content: bytes = b'model\nwith lines') -> None:
        self.content, self.calls = content, 0

    def __call__(self) -> bytes:
        self.calls += 1
        return self.content


def fetch(name, made_with, make, read=bytes):
    return cache.fetch(name, made_with, make, read)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    caplog.set_level(logging.INFO)
    return tmp_path / 'tag_perception'


def test_is_made_once_and_then_read(caplog):
    make = Maker()
    assert fetch('a.onnx', VERSIONS, make) == make.content
    assert fetch('a.onnx', VERSIONS, Maker(b'other')) == make.content
    assert make.calls == 1
    assert 'WARNING' not in caplog.text


def test_another_version_is_made_anew_and_said(caplog):
    fetch('a.onnx', VERSIONS, Maker())
    make = Maker(b'new')
    assert fetch('a.onnx', {**VERSIONS, 'torch': '3'}, make) == b'new'
    assert make.calls == 1
    assert 'a.onnx was made with another torch; making it anew' in caplog.text
    assert fetch('a.onnx', {**VERSIONS, 'torch': '3'}, Maker()) == b'new'


@pytest.mark.parametrize(
    ('damage', 'word'),
    [
        (lambda data: b'', 'not one of ours'),
        (lambda data: b'\xff\xfe\x00 rubbish', 'not one of ours'),
        (lambda data: b'[1, 2]\nmodel', 'not one of ours'),
        (lambda data: b'{"sha256": "0"}\nmodel', 'not one of ours'),
        (lambda data: b'[' * 70_000, 'not one of ours'),
        (lambda data: data[:-1], 'damaged'),
        (lambda data: data + b'more', 'damaged'),
        (lambda data: data[:-4] + b'ness', 'damaged'),
    ],
)
def test_a_foreign_or_damaged_file_is_replaced(home, caplog, damage, word):
    fetch('a.onnx', VERSIONS, Maker())
    file = home / 'a.onnx'
    file.write_bytes(damage(file.read_bytes()))
    make = Maker()
    assert fetch('a.onnx', VERSIONS, make) == make.content
    assert make.calls == 1
    assert word in caplog.text
    assert fetch('a.onnx', VERSIONS, make) == make.content
    assert make.calls == 1


@pytest.mark.parametrize('claimed', [2**40, 16])
def test_a_terabyte_that_is_only_claimed_is_not_read(home, caplog, claimed):
    fetch('a.onnx', VERSIONS, Maker())
    file = home / 'a.onnx'
    size = len(Maker().content)
    file.write_bytes(file.read_bytes().replace(b'"bytes": %d' % size, b'"bytes": %d' % claimed))
    os.truncate(file, 2**40)  # sparse: takes no disk
    with memory_taken() as peak:
        assert fetch('a.onnx', VERSIONS, Maker()) == Maker().content
    assert peak() < 16 * 2**20
    assert 'is damaged' in caplog.text


def test_a_folder_that_cannot_be_written_costs_one_warning(home, caplog):
    home.write_text('a file where the folder should be')
    make = Maker()
    for name in ('a.onnx', 'b.onnx', 'a.onnx'):
        assert fetch(name, VERSIONS, make) == make.content
    assert make.calls == 3
    (warning,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert f'cannot keep files in {home}: File exists; every start' in warning


def test_what_its_reader_refuses_is_made_anew_once(caplog):
    def read(content):
        if content != b'good':
            raise ValueError('is of another device')
        return 'read'

    fetch('a.plan', VERSIONS, Maker(b'bad'))
    make = Maker(b'good')
    assert fetch('a.plan', VERSIONS, make, read) == 'read'
    assert 'a.plan: is of another device; making it anew' in caplog.text
    assert fetch('a.plan', VERSIONS, Maker(b'bad'), read) == 'read'
    assert make.calls == 1
    with pytest.raises(ValueError, match='of another device'):
        fetch('b.plan', VERSIONS, Maker(b'bad'), read)


def test_a_full_disk_leaves_no_half_file(home, caplog, monkeypatch):
    def full(*_):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'replace', full)
    assert fetch('a.onnx', VERSIONS, Maker()) == Maker().content
    assert 'No space left' in caplog.text
    assert not list(home.iterdir())


def test_only_the_files_used_last_are_kept(home):
    for index in range(cache.KEPT_FILES + 3):
        fetch(f'{index}.onnx', VERSIONS, Maker())
        os.utime(home / f'{index}.onnx', (index, index))
        fetch('0.onnx', VERSIONS, Maker())  # in use all the time
    names = {path.name for path in home.iterdir()}
    assert len(names) == cache.KEPT_FILES
    assert {'0.onnx', f'{cache.KEPT_FILES + 2}.onnx'} <= names
    assert '1.onnx' not in names
