import json
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tag_perception import cli
from tag_perception.config import InputError
from tag_perception.core import costs
from tag_perception.core.network import PRESETS, build_network

TAG = PRESETS['tag']
WITHOUT = PRESETS['tag_without_tag']
R2 = {'detail_blocks': (2, 2, 0)}
R3 = {'detail_blocks': (1, 1, 1), 'layer5_blocks': 3, 'p1_kernel': 1}


@pytest.fixture(scope='module')
def rows():
    return {row.name: row for row in costs.paper_rows()}


@pytest.mark.parametrize(
    ('config', 'params', 'macs'),
    [
        (TAG, 33_167_616, 217_964_281_856),
        (WITHOUT, 32_181_887, 217_925_550_080),
        (replace(TAG, spatial_kernel='pointwise'), 33_199_487, 219_000_274_944),
        (replace(TAG, **R2), 33_758_464, 237_291_634_688),
        (replace(WITHOUT, **R2), 32_772_735, 237_252_902_912),
        (replace(TAG, **R3), 33_753_856, 216_756_322_304),
        (replace(WITHOUT, **R3), 32_768_127, 216_717_590_528),
    ],
)
def test_readings_of_the_paper_to_the_integer(config, params, macs):
    cost = costs.count(config)
    assert (cost.params, cost.macs) == (params, macs)


def test_slim_halves_every_width():
    cost = costs.count(PRESETS['tag_slim'], PRESETS['tag_slim'].input_size)
    assert cost.params == pytest.approx(8.3e6, rel=0.005)
    assert cost.macs == pytest.approx(13.7e9, rel=0.005)


@pytest.mark.parametrize('name', ['tag', 'tag_without_tag'])
def test_our_networks_are_near_the_paper(rows, name):
    row = rows[name]
    assert row.cost.params / 1e6 == pytest.approx(row.published.params_m, rel=0.025)
    assert row.cost.macs / 1e9 == pytest.approx(row.published.gmacs, rel=0.025)
    assert row.cost.rule / 1e9 == pytest.approx(row.published.gmacs, rel=0.003)


@pytest.mark.parametrize('name', costs.PAPER)
def test_every_row_is_within_half_a_percent_of_the_reconstruction(rows, name):
    row = rows[name]
    published = row.published
    assert row.cost.params / 1e6 == pytest.approx(published.reconstructed_params_m, rel=0.005)
    assert row.cost.macs / 1e9 == pytest.approx(published.reconstructed_gmacs, rel=0.005)
    with_auxiliary = published.reconstructed_params_with_auxiliary_m
    if with_auxiliary is None:
        assert row.params_with_auxiliary is None
    else:
        assert row.params_with_auxiliary / 1e6 == pytest.approx(with_auxiliary, rel=0.005)


@pytest.mark.parametrize('name', ['ddrnet23_slim', 'ddrnet39', 'pidnet_s', 'pidnet_m', 'pidnet_l'])
def test_auxiliary_heads_explain_the_paper_s_parameters(rows, name):
    row = rows[name]
    assert row.params_with_auxiliary / 1e6 == pytest.approx(row.published.params_m, rel=0.005)


def test_every_network_of_the_paper_has_a_row():
    assert set(costs.PAPER) == set(PRESETS) - {'tag_slim'}


def test_modules_add_up(rows):
    for row in rows.values():
        assert sum(module.params for module in row.cost.modules) == row.cost.params
        assert sum(module.macs for module in row.cost.modules) == row.cost.macs
    modules = {module.name: module for module in rows['tag'].cost.modules}
    assert modules['layer4'].params == 8_393_728
    assert modules['context'].macs == 3 * 12_079_595_520
    assert modules['heads.detection3d'].macs == pytest.approx(43.577e9, rel=1e-5)
    names = list(modules)
    assert (names[0], names[-1]) == ('stem', 'heads.depth')


@pytest.mark.parametrize('name', ['tag_slim', 'dla34', 'pidnet_s'])
def test_macs_agree_with_torch_s_own_counter(name):
    with torch.device('meta'), torch.no_grad():
        network = build_network(PRESETS[name]).eval()
        with FlopCounterMode(display=False) as counter:
            network(torch.empty(1, 3, 96, 160))
    assert costs.count(PRESETS[name], (96, 160)).macs == counter.get_total_flops() // 2


def test_command_prints_the_table_and_writes_json(tmp_path, capsys):
    path = tmp_path / 'costs.json'
    assert cli.main(['costs', '--json', str(path)]) == 0
    printed = capsys.readouterr().out
    assert '33,167,616' in printed
    assert '217,964,281,856' in printed
    assert 'heads.detection3d' in printed
    first, second, slim, *_ = json.loads(path.read_text())['rows']
    assert {k: first[k] for k in ('name', 'params', 'macs', 'paper_params_m', 'paper_gmacs')} == {
        'name': 'tag',
        'params': 33_167_616,
        'macs': 217_964_281_856,
        'paper_params_m': 33.9,
        'paper_gmacs': 219,
    }
    assert (second['name'], slim['name']) == ('tag_without_tag', 'tag_slim')
    assert slim['paper_gmacs'] is None


def test_unwritable_file_is_named(rows, tmp_path):
    with pytest.raises(InputError, match=r'missing.x\.json'):
        costs.write_json(list(rows.values()), tmp_path / 'missing' / 'x.json')


def test_paper_table_shows_reconstruction_and_auxiliary_heads(rows):
    table = costs.format_table(list(rows.values()))
    (line,) = (line for line in table.splitlines() if line.startswith('pidnet_s'))
    assert line.split()[1:6] == ['8,737,695', '9,391,903', '9.4M', '8.738M', '9.392M']
    assert line.split()[-2:] == ['84G', '83.61G']
