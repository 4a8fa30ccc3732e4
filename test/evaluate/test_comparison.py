import json

import pytest

from tag_perception.cli import main
from tag_perception.evaluate.comparison import Entry, Row, _figure, compare, delta_t

STL = (54.55, 66.38, 5.50)
PAPER = [  # name, DS, mIoU, RMSE, printed ΔT, FPS: Table II, then the first four rows of Table III
    ('DLA34', 38.05, 63.79, 6.15, -15.32, 17.3),
    ('ResNet50', 51.92, 66.40, 5.87, -3.84, 12.4),
    ('ICNet', 39.67, 61.18, 5.68, -12.79, 21.7),
    ('DDRNet-23-slim', 32.36, 60.06, 6.26, -21.34, 50.9),
    ('DDRNet-23', 49.19, 62.80, 5.93, -7.68, 30.1),
    ('DDRNet-39', 50.83, 67.17, 5.59, -2.42, 20.3),
    ('PIDNet-S', 40.12, 50.57, 6.82, -24.76, 42.9),
    ('PIDNet-M', 50.78, 58.31, 6.27, -11.02, 24.9),
    ('PIDNet-L', 53.48, 58.81, 6.33, -9.48, 20.4),
    ('Ours (w/o TAG)', 57.46, 65.90, 5.49, 1.60, 30.8),
    ('Ours', 61.21, 66.50, 5.36, 4.98, 30.2),
    ('no high-resolution branch', 49.13, 58.99, 6.21, -11.33, 37.1),
    ('no aggregation', 49.10, 60.09, 5.74, -7.94, 35.0),
    ('no channel attention', 55.12, 61.02, 5.56, -2.71, 30.3),
    ('no spatial attention', 58.21, 63.71, 5.62, 0.17, 30.7),
]


def metrics_of(row):
    return dict(zip(('mds_amodal', 'miou', 'rmse_m'), row, strict=True))


@pytest.mark.parametrize('row', PAPER, ids=lambda row: row[0])
def test_delta_t_reproduces_the_paper(row):
    change = delta_t(metrics_of(row[1:4]), metrics_of(STL))
    # PIDNet-L: exactly -9.4855, printed is the mean of percentages that were rounded before.
    assert change == pytest.approx(row[4], abs=0.0056)


def test_the_baseline_itself_has_delta_zero():
    assert delta_t(metrics_of(STL), metrics_of(STL)) == 0


@pytest.fixture
def results(tmp_path):
    def write(name, values):
        folder = tmp_path / name
        folder.mkdir()
        (folder / 'results.json').write_text(json.dumps(values))
        return str(folder)

    return write


def test_single_task_baselines_each_give_their_own_metric(results, capsys):
    ours = results('ours', metrics_of(PAPER[10][1:4]) | {'fps': 30.2})
    singles = [
        results(f'single-{name}', dict.fromkeys(metrics_of(STL)) | {name: value})
        for name, value in metrics_of(STL).items()
    ]
    assert main(['compare', ours, '--baseline', *singles]) == 0
    line = capsys.readouterr().out.splitlines()[1]
    assert line.split() == ['ours', '61.2100', '66.5000', '5.3600', '+4.98', '30.2']


def test_the_figure_needs_every_fps(results, tmp_path, capsys):
    files = [results(row[0].split()[0], metrics_of(row[1:4])) for row in PAPER[:3]]
    figure = tmp_path / 'figure.svg'
    assert main(['compare', *files, '--out', str(figure)]) == 2
    assert 'give --fps DLA34=VALUE' in capsys.readouterr().err
    speeds = [f'{row[0]}={row[5]}' for row in PAPER[:3]]
    assert main(['compare', *files, '--fps', *speeds, '--out', str(figure)]) == 0
    assert '<svg' in figure.read_text()
    assert main(['compare', *files, '--fps', 'nobody=3']) == 2
    assert "--fps: no results named 'nobody'" in capsys.readouterr().err
    assert main(['compare', *files, '--fps', 'DLA34=fast']) == 2
    assert 'name=value' in capsys.readouterr().err


def test_every_network_is_legible_however_close_two_are():
    values, count = (0.5, 0.7, 4.0), 14
    rows = [Row(f'network {i}', values, 59.1 + 0.01 * i, 5.0 + 0.01 * i) for i in range(count)]
    figure = _figure(rows)
    figure.draw_without_rendering()
    texts = figure.legends[0].get_texts()
    assert [text.get_text().partition(':')[0] for text in texts] == [row.name for row in rows]
    boxes = [text.get_window_extent() for text in texts]
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:i])
        assert figure.bbox.containsx(box.x0)
        assert figure.bbox.containsx(box.x1)
        assert figure.bbox.containsy(box.y0)
    looks = {(line.get_color(), line.get_marker()) for line in figure.axes[0].lines[2:]}
    assert len(looks) == count


def test_networks_of_one_name_are_told_apart_by_their_folders(results, tmp_path, capsys):
    for folder, row, fps in (('slim', PAPER[0], 17.3), ('wide', PAPER[1], 12.4)):
        results(folder, metrics_of(row[1:4]) | {'name': 'best', 'fps': fps})
    files = [str(tmp_path / 'slim'), str(tmp_path / 'wide' / 'results.json')]
    assert main(['compare', *files, '--fps', 'best (wide)=50']) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line[:11] for line in lines] == ['best (slim)', 'best (wide)']
    assert [line.split()[-1] for line in lines] == ['17.3', '50.0']


def test_missing_metrics_are_named():
    whole, half = Entry('whole', metrics_of(STL)), Entry('half', {'miou': 0.5, 'rmse_m': None})
    from tag_perception.config import InputError

    with pytest.raises(InputError, match='half: no mds_amodal in its results'):
        compare([whole, half])
    with pytest.raises(InputError, match='mds_amodal: no baseline has it above 0'):
        compare([Entry('untrained', metrics_of((0.0, 0.1, 9.0)))])
    rows = compare([whole, half], metrics=('miou',))
    assert rows[1].delta_t == pytest.approx(100 * (0.5 - 66.38) / 66.38)


def test_a_wrong_file_is_named(tmp_path, capsys):
    path = tmp_path / 'x.json'
    path.write_text('[1]')
    assert main(['compare', str(path)]) == 2
    assert 'not a results file of evaluate' in capsys.readouterr().err
