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


def test_a_bias_against_sky_moves_its_logit_alone_and_is_recorded(source, tmp_path):
    once, twice = tmp_path / 'once.safetensors', tmp_path / 'twice.safetensors'
    publish(source, once, sky_bias=-1.0)
    publish(once, twice, sky_bias=0.25)
    before, after = checkpoint.load(source), checkpoint.load(twice)
    assert after.metadata == {'step': 7, 'sky_bias': -0.75}
    image = torch.rand(1, 3, 64, 128)
    with torch.no_grad():
        moved, still = (c.network.eval()(image)['semantic'] for c in (after, before))
    change = (moved - still).mean((0, 2, 3))
    expected = torch.zeros(19)
    expected[10] = -0.75  # train id of sky
    torch.testing.assert_close(change, expected, rtol=0, atol=0.01)


def test_a_network_without_sky_takes_no_bias(tmp_path):
    config = NetworkConfig(width=8, input_size=(64, 128), tasks=('depth',))
    checkpoint.save(tmp_path / 'a.safetensors', build_network(config), config, {})
    with pytest.raises(InputError, match=r'a\.safetensors: has no semantic head'):
        publish(tmp_path / 'a.safetensors', tmp_path / 'b.safetensors', sky_bias=-1.0)


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
