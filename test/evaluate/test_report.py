import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from tag_perception.cli import main
from tag_perception.core import checkpoint
from tag_perception.core.network import PRESETS, build_network
from tag_perception.core.structures import Objects3D, Scene
from tag_perception.data.cityscapes3d import Cityscapes3D
from tag_perception.evaluate.evaluation import evaluate, scene_from_labels
from tag_perception.evaluate.report import write_report

SECTIONS = ('3D detection', 'Semantic segmentation', 'Depth', 'Best frames', 'Attention')


@pytest.fixture(scope='module')
def tree(write_tree, tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp('tree'), frames=2)


def assert_self_contained(html):
    assert 'http' not in html
    assert '<link' not in html
    assert '<script' not in html
    sources = re.findall(r'src="([^"]{0,30})', html)
    assert sources
    assert all(source.startswith('data:image/') for source in sources)
    assert '>nan' not in html
    assert 'None' not in html


def test_the_verb_writes_results_and_a_self_contained_report(tree, tmp_path, capsys):
    torch.manual_seed(0)
    config = replace(PRESETS['tag_slim'], input_size=(64, 128))
    weights = tmp_path / 'tiny' / 'best.safetensors'
    checkpoint.save(weights, build_network(config), config, {})
    out = tmp_path / 'out'
    arguments = ['evaluate', str(weights), str(tree), '--out', str(out), '--device', 'cpu']
    assert main(arguments) == 0
    assert 'miou' in capsys.readouterr().out
    results = json.loads((out / 'results.json').read_text())
    assert results['name'] == 'tiny/best'
    assert results['sha256'] == checkpoint.load(weights).sha256
    for key in ('miou', 'mds_amodal', 'mds_modal', 'car_ds_amodal', 'car_ds_modal'):
        assert 0 <= results[key] <= 1
    assert results['rmse_m'] > 0
    assert results['rmse_disp_px'] > 0
    html = (out / 'report.html').read_text()
    assert_self_contained(html)
    assert 'tag, input 64×128' in html
    for section in SECTIONS:
        assert f'<h2>{section}</h2>' in html
    for name in Cityscapes3D(tree, 'val').names:
        assert name in html
    assert main([*arguments, '--limit', '0']) == 2
    assert main([*arguments, '--split', 'test']) == 2
    assert "no images of split 'test'" in capsys.readouterr().err


def test_tasks_that_a_network_lacks_have_no_section(tree, tmp_path):
    dataset = Cityscapes3D(tree, 'val')
    scenes = iter([scene_from_labels(sample) for sample in dataset])
    results = evaluate(
        lambda image, camera: replace(next(scenes), detection3d=None, depth=None),
        dataset,
        tmp_path,
        about={'name': '<segmentation & nothing else>'},
    )
    path = write_report(
        results, dataset, lambda s: replace(scene_from_labels(s), detection3d=None), tmp_path
    )
    html = path.read_text()
    assert_self_contained(html)
    assert '&lt;segmentation &amp; nothing else&gt;' in html
    assert '<h2>Semantic segmentation</h2>' in html
    for section in ('3D detection', 'Depth', 'Attention'):
        assert f'<h2>{section}</h2>' not in html


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('labels', ['empty', 'absent'])
def test_without_anything_to_score_there_are_no_empty_charts(write_tree, tmp_path, labels):
    root = write_tree(tmp_path / 'tree', frames=2)
    dataset = Cityscapes3D(root, 'val')
    for path in root.glob('*/val/*/*'):
        if labels == 'absent' and path.parts[-4] in ('gtFine', 'disparity', 'gtBbox3d'):
            path.unlink()
        elif path.name.endswith(('labelIds.png', 'disparity.png')):
            Image.fromarray(np.zeros_like(Image.open(path))).save(path)
        elif path.name.endswith('gtBbox3d.json'):
            document = json.loads(path.read_text())
            path.write_text(json.dumps(document | {'objects': [], 'ignore': []}))

    def scene_of(sample):
        return Scene(torch.zeros(128, 256).byte(), torch.ones(128, 256), Objects3D.empty())

    results = evaluate(lambda image, camera: scene_of(None), dataset, tmp_path)
    html = write_report(results, dataset, scene_of, tmp_path).read_text()
    assert '>nan' not in html
    assert 'None' not in html
    assert '<img' not in html  # no frame is better than another either
    frames = 2 if labels == 'empty' else 0
    assert f'detection3d {frames},' in html
    assert ('All pixels are void' in html) == (labels == 'empty')


def test_the_report_says_what_the_official_rule_did_and_what_was_left_out(tree, tmp_path):
    dataset = Cityscapes3D(tree, 'val')
    first = scene_from_labels(dataset[0])
    results = evaluate(lambda image, camera: first, dataset, tmp_path, limit=1)
    results['broken'] = ['x_camera.json: intrinsic.fx: is missing']
    html = write_report(results, dataset, scene_from_labels, tmp_path).read_text()
    assert 'lie in one 5 m range bin' in html
    assert 'x_camera.json: intrinsic.fx: is missing' in html
    assert 'Broken frames that were left out: 1' in html
    assert '<h2>Worst frames</h2>' not in html  # there is one frame, and it is the best
