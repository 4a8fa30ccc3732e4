import json

import pytest
import torch

from tag_perception.config import InputError
from tag_perception.core import checkpoint
from tag_perception.core.network import NetworkConfig, build_network
from tag_perception.learn.publishing import publish


@pytest.fixture
def source(tmp_path):
    network = build_network(NetworkConfig(width=8, input_size=(64, 128)))
    checkpoint.save(tmp_path / 'a.safetensors', network, network.config, {'step': 7})
    return tmp_path / 'a.safetensors'


def test_a_published_file_is_half_as_large_and_holds_its_scores(source, tmp_path):
    results = tmp_path / 'results.json'
    results.write_text(json.dumps({'miou': 0.5, 'frames': [{'x': 1}], 'rmse_m': 4}))
    target = tmp_path / 'models' / 'b.safetensors'
    summary = publish(source, target, results)
    loaded = checkpoint.load(target)
    assert loaded.metadata == {'step': 7, 'scores': {'miou': 0.5, 'rmse_m': 4}}
    assert loaded.sha256 in summary
    assert target.stat().st_size < 0.55 * source.stat().st_size
    original = checkpoint.load(source).network.state_dict()
    for name, value in loaded.network.state_dict().items():
        torch.testing.assert_close(value, original[name], rtol=1e-3, atol=1e-6)


def test_folders_of_this_machine_are_not_published(source, tmp_path):
    loaded = checkpoint.load(source)
    told = {'init_from': str(source), 'data': {'root': 'out/streets', 'size': [64, 128]}}
    checkpoint.save(source, loaded.network, loaded.config, {'experiment': told})
    publish(source, tmp_path / 'b.safetensors')
    assert checkpoint.load(tmp_path / 'b.safetensors').metadata == {
        'experiment': {**told, 'init_from': 'a.safetensors'}
    }


def test_what_does_not_fit_in_fp16_is_one_clear_line(source, tmp_path):
    loaded = checkpoint.load(source)
    loaded.network.heads['depth'][0].bias.data[3] = 1e9
    checkpoint.save(source, loaded.network, loaded.config, {})
    with pytest.raises(InputError, match=r'heads\.depth\.0\.bias does not fit in fp16'):
        publish(source, tmp_path / 'b.safetensors')
    assert not (tmp_path / 'b.safetensors').exists()


def test_a_missing_results_file_is_one_clear_line(source, tmp_path):
    with pytest.raises(InputError, match=r'no\.json: not a results file'):
        publish(source, tmp_path / 'b.safetensors', tmp_path / 'no.json')
