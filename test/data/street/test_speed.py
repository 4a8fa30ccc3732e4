"""Few and small streets: what is measured is nobody's business, how it is said is."""

import json

import pytest

from tag_perception.cli import main

SMALL = ('benchmark', 'street', '--size', '32x64', '--frames', '2', '--device', 'cpu')


@pytest.mark.parametrize('workers', [0, 1])
def test_the_verb_says_how_many_streets_a_loader_delivers(workers, tmp_path, capsys):
    file = tmp_path / 'street.json'
    options = ('--workers', str(workers), '--rounds', '3', '--json', str(file))
    assert main([*SMALL, *options]) == 0
    figures = json.loads(file.read_text())
    assert figures['benchmark'] == 'street'
    assert (figures['size'], figures['device'], figures['workers']) == ('32×64', 'cpu', workers)
    assert (figures['frames'], figures['rounds']) == (2, 3)
    assert 0 < figures['slowest_fps'] <= figures['fps'] <= figures['fastest_fps']
    assert list(figures['stages_ms']) == ['lay out', 'render', 'label']
    assert min(figures['stages_ms'].values()) > 0
    assert figures['machine']['cpu_cores']
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f'{figures["fps"]:.1f} frames/s')
    assert f'from {workers} loader processes' in first
    assert 'lay out' in second


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        (('--frames', '0'), 'frames 0: give at least 1'),
        (('--rounds', '-1'), 'rounds -1: give at least 1'),
        (('--workers', '-1'), 'workers -1: must not be negative'),
        (('--size', '8x16'), 'too small'),
        (('--size', '512'), 'HEIGHTxWIDTH'),
    ],
)
def test_wrong_arguments_end_with_one_line(options, said, capsys):
    assert main([*SMALL, *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
