from dataclasses import replace

import numpy as np
import pytest
import torch

from tag_perception.config import InputError
from tag_perception.core.inference import infer
from tag_perception.core.network import PRESETS, build_network
from tag_perception.core.structures import Camera
from tag_perception.evaluate.predictor import NetworkPredictor

CAMERA = Camera(160, 96, fx=140.0, fy=141.0, u0=80.0, v0=47.0, baseline_m=0.2)
IMAGE = np.random.default_rng(0).integers(0, 256, (96, 160, 3), np.uint8)


def predictor(**changes):
    torch.manual_seed(1)
    config = replace(PRESETS['tag_slim'], input_size=(64, 128), **changes)
    return NetworkPredictor(build_network(config), 'cpu')


def test_it_is_the_reference_path():
    predict = predictor()
    scene = predict(IMAGE, CAMERA)
    expected = infer(predict.network, torch.from_numpy(IMAGE)[None], [CAMERA])[0]
    assert torch.equal(scene.semantic, expected.semantic)
    assert torch.equal(scene.detection3d.center_cam, expected.detection3d.center_cam)
    swapped = np.ascontiguousarray(IMAGE[..., ::-1])[..., ::-1]
    assert torch.equal(predict(swapped, CAMERA).semantic, expected.semantic)


def test_attention_shows_the_terms_of_equation_4():
    predict = predictor()
    maps = predict.attention(IMAGE, CAMERA)
    tasks = predict.network.config.tasks
    assert set(maps) == {'h', 'beta'} | {f'{k}/{t}' for k in ('alpha_h', 'h_t') for t in tasks}
    assert {value.shape for value in maps.values()} == {(8, 16)}
    for task in tasks:
        both = maps[f'alpha_h/{task}'] + maps['beta']
        assert np.allclose(both, maps[f'h_t/{task}'], atol=1e-5)
    assert 0 <= maps['beta'].min() <= maps['beta'].max() <= 1
    assert not predict.network.attention._forward_hooks  # nothing stays behind


def test_alpha_h_is_the_scaled_feature():
    predict = predictor()
    maps = predict.attention(IMAGE, CAMERA)
    seen = {}
    predict.network.attention.register_forward_hook(
        lambda module, inputs, outputs: seen.update(h=inputs[0], semantic=inputs[1])
    )
    predict(IMAGE, CAMERA)
    for task, channel in predict.network.attention.S_ch.items():
        with torch.inference_mode():
            scaled = torch.sigmoid(channel(seen['semantic'])) * seen['h']
        assert np.allclose(maps[f'alpha_h/{task}'], scaled[0].mean(0), atol=1e-5)


@pytest.mark.parametrize('missing', ['channel_attention', 'spatial_attention'])
def test_half_of_tag_is_shown_for_what_it_has(missing):
    maps = predictor(**{missing: False}).attention(IMAGE, CAMERA)
    assert ('beta' in maps) == (missing == 'channel_attention')
    if missing == 'channel_attention':
        assert np.allclose(maps['alpha_h/depth'], maps['h'], atol=1e-5)


def test_without_tag_there_is_nothing_to_show():
    predict = predictor(channel_attention=False, spatial_attention=False)
    assert predict.attention(IMAGE, CAMERA) == {}


@pytest.mark.skipif(torch.cuda.is_available(), reason='this machine has CUDA')
def test_a_missing_device_is_named():
    network = predictor().network
    with pytest.raises(InputError, match='no CUDA device'):
        NetworkPredictor(network, 'cuda')
    assert NetworkPredictor(network, 'auto').device.type == 'cpu'
