"""Small networks and few rounds: what is measured is nobody's business, how it is said is."""

import json
import signal
import subprocess
from dataclasses import replace
from importlib.metadata import version

import numpy as np
import pytest
import torch
from PIL import Image

from tag_perception import cli
from tag_perception.config import InputError
from tag_perception.core.structures import Objects3D, Scene
from tag_perception.runtime import benchmark, fidelity, roofline
from tag_perception.runtime.contenders import EAGER, build_contenders
from tag_perception.runtime.fidelity import Fidelity
from tag_perception.runtime.onnx import to_onnx

from .comparison import assert_close
from .conftest import awake_network, save
from .test_engine import CAMERA, image, reference

on_each_device = pytest.mark.parametrize(
    'device',
    [
        'cpu',
        pytest.param(
            'cuda',
            marks=[
                pytest.mark.gpu,
                pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device'),
            ],
        ),
    ],
)


@on_each_device
def test_every_contender_gives_the_scene_of_the_reference_path(tmp_path, device):
    network = awake_network('tag_slim')
    path = save(network, tmp_path / 'tiny.safetensors')
    expected = reference(path, image(), CAMERA, device)
    contenders = build_contenders(network, torch.device(device))
    assert next(iter(contenders)) == EAGER
    for name, contender in contenders.items():
        scenes = contender([image(), image()], [CAMERA, CAMERA])
        assert len(scenes) == 2
        precision = next((p for p in ('fp16', 'bf16') if p in name), 'fp32')
        assert_close(scenes[1], expected, precision)
        assert list(contender.stages_ms) == [
            'upload', 'preprocess', 'network', 'decode', 'download',
        ]  # fmt: skip
        contender.close()


@on_each_device
def test_engine_figures_from_the_command_line(tmp_path, capsys, device):
    file = tmp_path / 'engine.json'
    arguments = ['benchmark', 'engine', '--size', '64x128', '--batch', '1', '2', '--rounds', '2']
    assert cli.main([*arguments, '--device', device, '--json', str(file)]) == 0
    content = json.loads(file.read_text())
    assert content['benchmark'] == 'engine'
    assert content['busy'] == 0
    assert content['machine']['versions']['torch'] == version('torch')
    assert {'cpu', 'cpu_cores', 'threads', 'load_average', 'os'} <= content['machine'].keys()
    rows = content['rows']
    assert {row['batch'] for row in rows} == {1, 2}
    engines = {row['engine'] for row in rows}
    assert {EAGER, 'torch' if device == 'cpu' else 'torch fp16'} <= engines
    if device == 'cuda':
        assert {'gpu', 'driver', 'cuda', 'cudnn'} <= content['machine'].keys()
    for row in rows:
        assert row['preset'] == 'tag_slim'
        assert row['size'] == '64x128'
        assert row['device'] == ('cpu' if device == 'cpu' else torch.cuda.get_device_name(0))
        assert 0 < row['min_ms'] <= row['p50_ms'] <= row['p99_ms'] <= row['max_ms']
        assert row['network_p50_ms'] < row['p50_ms']
        assert row['roofline_share'] > 0
        assert row['fps'] == pytest.approx(1e3 * row['batch'] / row['p50_ms'])
        assert row['fidelity']['same_labels'] > 0.9
        assert row['fidelity']['depth_error'] < 0.05
    eager = [row for row in rows if row['engine'] == EAGER]
    assert [row['fidelity']['same_labels'] for row in eager] == [1, 1]
    assert [row['ratio_to_eager'] for row in eager] == [1, 1]
    assert 'eager fp32' in capsys.readouterr().out


def test_a_checkpoint_on_pictures_also_in_8_bit_integers(tmp_path, capsys):
    pytest.importorskip('onnx')
    pytest.importorskip('onnxruntime')
    path = save(awake_network('tag_slim'), tmp_path / 'tiny.safetensors')
    for index in range(4):
        Image.fromarray(image(index, 50, 100)).save(tmp_path / f'{index}.png')
    file = tmp_path / 'figures.json'
    arguments = ['--preset', path, '--images', str(tmp_path), '--int8', '--json', str(file)]
    assert cli.main(['benchmark', 'engine', *arguments, '--device', 'cpu', '--rounds', '1']) == 0
    rows = {row['engine']: row for row in json.loads(file.read_text())['rows']}
    rounded = rows['onnxruntime int8']
    assert rounded['preset'] == path
    assert rounded['size'] == '64x128'
    assert 0.5 < rounded['fidelity']['same_labels'] < 1
    assert rounded['fidelity']['depth_error'] > rows['onnxruntime']['fidelity']['depth_error']


def test_fidelity_counts_what_a_user_would_notice():
    boxes = Objects3D(
        class_id=torch.tensor([0, 1, 0]),
        score=torch.tensor([0.9, 0.5, 0.2]),
        center_cam=torch.tensor([[10.0, 0, 0], [20, 0, 0], [30, 0, 0]]),
        size_lwh_m=torch.ones(3, 3),
        rotation_cam=torch.tensor([[0.0, 0, 0, 1]]).expand(3, 4),
        box_2d_px=torch.tensor([[0.0, 0, 9, 9], [20, 0, 29, 9], [50, 0, 59, 9]]),
        depth_sigma_m=torch.ones(3),
    )
    labels = torch.zeros(10, 10, dtype=torch.uint8)
    reference = Scene(labels, torch.full((10, 10), 10.0), boxes)
    assert fidelity.compare([reference], [reference]) == Fidelity(1.0, 0.0, 1.0)
    moved = replace(boxes, center_cam=boxes.center_cam + torch.tensor([0.3, 0, 0]))
    other = labels.clone()
    other[0] = 3
    depth = torch.full((10, 10), 10.1)
    depth[5] = torch.nan
    found = fidelity.compare([Scene(other, depth, moved)], [reference])
    assert found.same_labels == pytest.approx(0.9)
    assert found.depth_error == pytest.approx(0.01, rel=1e-3)
    assert found.same_boxes == 0.5  # 3 % of 10 m is too far, and the third is not asked for
    assert fidelity.compare([Scene(None, None, None)], [reference]) == Fidelity(None, None, None)


@on_each_device
def test_baselines_stand_beside_the_paper_and_three_single_tasks(device):
    presets = ['tag_slim', *benchmark.SINGLES]
    found = benchmark.benchmark_baselines(presets, (64, 128), 2, torch.device(device))
    rows = {row.preset: row for row in found}
    assert list(rows) == [*presets, benchmark.THREE_SINGLES]
    assert rows['dla34_detection3d'].paper_fps == 17.4
    assert rows['tag_slim'].paper_fps is None
    together = rows[benchmark.THREE_SINGLES]
    assert together.min_ms >= sum(rows[name].min_ms for name in benchmark.SINGLES) - 1e-6
    assert together.ratio_to_three_singles == 1
    assert rows['tag_slim'].ratio_to_three_singles == pytest.approx(
        together.p50_ms / rows['tag_slim'].p50_ms
    )
    assert together.stages_ms.keys() == rows['tag_slim'].stages_ms.keys()


def test_contenders_take_turns():
    calls = []

    class Fake:
        backend, stages_ms = 'fake', {'network': 1.0}

        def __init__(self, name):
            self.name = name

        def __call__(self, images, cameras, memory=None):
            assert images[0].shape == (40, 72, 3)
            assert (cameras[0].height, cameras[0].width) == (40, 72)
            calls.append(self.name)

    pictures = [np.zeros((40, 72, 3), np.uint8)]
    samples = benchmark.measure({'a': Fake('a'), 'b': Fake('b')}, pictures, 2, rounds=3)
    assert calls == ['a', 'b'] * (3 + benchmark.WARM_UP)
    assert len(samples['b'].total_ms) == len(samples['b'].stages_ms) == 3


def test_what_keeps_the_cores_busy_ends_with_the_measurement(monkeypatch, tmp_path):
    started = []

    class Recorded(subprocess.Popen):
        def __init__(self, command):
            super().__init__(command)
            started.append(self)

    def measured(*_):
        assert [process.poll() for process in started] == [None, None]
        raise InputError('enough seen')

    monkeypatch.setattr(subprocess, 'Popen', Recorded)
    monkeypatch.setattr(benchmark, 'benchmark_engine', measured)
    assert cli.main(['benchmark', 'engine', '--busy', '2', '--device', 'cpu']) == 2
    assert [process.poll() for process in started] == [-signal.SIGKILL] * 2


def test_work_is_that_of_the_cost_table_and_less_at_peaks():
    from tag_perception.core.costs import count
    from tag_perception.core.network import PRESETS

    config = PRESETS['tag']
    dense = roofline.measure_work(config, sparse=False)
    assert dense.macs == count(config).macs
    assert roofline.measure_work(config).macs < 0.83 * dense.macs
    rates = roofline.Rates(macs_per_s=1e12, bytes_per_s=1e30)
    assert dense.roofline_ms(rates, 4) == pytest.approx(dense.macs / 1e9)
    rates = roofline.Rates(macs_per_s=1e30, bytes_per_s=1e9)
    assert dense.roofline_ms(rates, 2) == pytest.approx(dense.numbers * 2 / 1e6)


@pytest.mark.parametrize(
    ('arguments', 'word'),
    [
        (['engine', '--preset', 'nonsense'], 'nonsense'),
        (['engine', '--size', '65x128'], 'multiples of 32'),
        (['engine', '--size', 'big'], 'big'),
        (['engine', '--rounds', '0'], 'rounds'),
        (['engine', '--batch', '0'], 'batch'),
        (['engine', '--batch', '65'], 'batch 65 is more than 64'),
        (['engine', '--size', '8192x8192'], 'more than'),
        (['engine', '--busy', '-1'], '-1 busy processes'),
        (['engine', '--images', 'no/such/folder'], 'at least two pictures'),
        (['engine', '--preset', 'no/such/file.safetensors'], 'no/such/file.safetensors'),
        (['baselines', '--rounds', '-1'], 'rounds'),
    ],
)
def test_wrong_arguments_are_one_line(capsys, arguments, word):
    assert cli.main(['benchmark', *arguments, '--device', 'cpu']) == 2
    error = capsys.readouterr().err
    assert word in error
    assert error.count('\n') == 1


def test_figures_that_cannot_be_written_are_one_line(tmp_path):
    from tag_perception.runtime.machine import write_json

    with pytest.raises(InputError, match='cannot write the figures'):
        write_json(tmp_path / 'no' / 'file.json', {})


def test_exported_network_gives_the_raw_outputs(tmp_path, capsys):
    onnxruntime = pytest.importorskip('onnxruntime')
    network = awake_network('tag_slim')
    path, output = save(network, tmp_path / 'tiny.safetensors'), tmp_path / 'tiny.onnx'
    assert cli.main(['export', path, str(output), '--batch', '2']) == 0
    assert 'image → detection3d, semantic, depth' in capsys.readouterr().out
    session = onnxruntime.InferenceSession(str(output), providers=['CPUExecutionProvider'])
    inputs = torch.randn(2, 3, 64, 128)
    found = session.run(None, {'image': inputs.numpy()})
    names = [value.name for value in session.get_outputs()]
    with torch.inference_mode():
        expected = network(inputs)
    for name, values in zip(names, found, strict=True):
        np.testing.assert_allclose(values, expected[name].numpy(), rtol=1e-3, atol=1e-3)


def test_export_refuses_in_one_line(tmp_path, capsys):
    assert cli.main(['export', 'tag_slim', str(tmp_path / 'no' / 'file.onnx')]) == 2
    assert 'cannot write the network' in capsys.readouterr().err
    assert cli.main(['export', str(tmp_path / 'none'), str(tmp_path / 'file.onnx')]) == 2
    assert cli.main(['export', 'tag_slim', str(tmp_path / 'f.onnx'), '--batch', '0']) == 2


def test_onnx_file_needs_no_cache(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    assert len(to_onnx(awake_network('tag_slim'), ['detection3d', 'semantic', 'depth'])) > 1e6
    assert not list(tmp_path.iterdir())
