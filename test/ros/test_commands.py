"""The verbs around bags, from the command line to the file."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tag_perception import cli
from tag_perception.ros.storage import BagReader
from tag_perception.runtime import engine

from .fakes import FakeEngine


@pytest.fixture
def bag(tmp_path, write_tree) -> str:
    tree = write_tree(tmp_path / 'tree', frames=3, size=(64, 128))
    assert cli.main(['make-bag', str(tree), str(tmp_path / 'in.mcap'), '--split', 'val']) == 0
    return str(tmp_path / 'in.mcap')


def test_make_bag_prints_what_it_wrote(bag, tmp_path, capsys):
    with BagReader(bag) as reader:
        assert reader.counts['/image'] == reader.counts['/ground_truth/depth/image'] == 3
    options = ['--limit', '1', '--storage', 'sqlite3', '--encoding', 'rgb8']
    command = ['make-bag', str(tmp_path / 'tree'), str(tmp_path / 'folder'), *options]
    assert cli.main(command) == 0
    assert '1  /ground_truth/detections' in capsys.readouterr().out
    with BagReader(tmp_path / 'folder') as reader:
        ((topic, _, data),) = reader.messages({'/image'})
        assert reader.decode(topic, data).encoding == 'rgb8'


def test_process_bag_takes_the_nodes_parameters(bag, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(engine, 'Engine', FakeEngine)
    output = str(tmp_path / 'out.mcap')
    assert cli.main(['process-bag', bag, output, 'class_id_format=id']) == 0
    assert '3 received = 3 processed' in capsys.readouterr().out
    with BagReader(output) as reader:
        for topic, _, data in reader.messages({'/perception/detections'}):
            first, second = reader.decode(topic, data).detections
            assert first.results[0].hypothesis.class_id == '13'
            assert second.results[0].hypothesis.class_id == '15'


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        (['make-bag', 'nowhere', 'out.mcap'], 'nowhere: no such folder'),
        (['process-bag', 'nowhere.mcap', 'out.mcap'], 'nowhere.mcap: no bag'),
        (['process-bag', 'a', 'b', 'engine.devise=cpu'], "unknown key 'engine.devise'"),
        (['play-bag', 'a', '--rate', '0'], 'rate 0.0 is not a positive number'),
        (['demo', '--input', 'nowhere'], 'nowhere does not exist: give a folder of images'),
        (
            ['demo', '--input', __file__],
            f'{__file__} is neither a folder nor a bag: give a folder',
        ),
        (['make-bag', __file__, 'out.mcap'], f'{__file__} is a file: give a folder of images'),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(arguments, said, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(engine, 'Engine', FakeEngine)
    assert cli.main(arguments) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith(f'tag_perception {arguments[0]}: ')
    assert said in lines[-1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(('verb', 'code'), [('node', 0), ('demo', 0), ('train', 130)])
def test_ctrl_c_before_the_work_has_begun(verb, code, monkeypatch, capsys):
    def interrupted(arguments):
        raise KeyboardInterrupt

    monkeypatch.setitem(cli.VERBS, verb, interrupted)
    assert cli.main([verb]) == code
    assert capsys.readouterr().err == ''


def test_nothing_heavy_is_imported_before_signals_are_handled():
    code = 'import sys, tag_perception.cli, tag_perception.ros.process; print(*sys.modules)'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert {'yaml', 'numpy', 'torch', 'rclpy'} & set(done.stdout.split()) == set()
