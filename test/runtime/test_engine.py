import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from tag_perception.config import InputError
from tag_perception.core import checkpoint
from tag_perception.core.inference import infer
from tag_perception.core.network import PRESETS, build_network
from tag_perception.core.structures import Camera
from tag_perception.runtime.engine import Engine, EngineConfig

HEIGHT, WIDTH = 96, 192
CAMERA = Camera(WIDTH, HEIGHT, fx=212.0, fy=211.0, u0=103.0, v0=48.0)
without_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason='this machine has CUDA')


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    config = replace(PRESETS['tag_slim'], input_size=(64, 128))
    torch.manual_seed(3)
    network = build_network(config)
    path = tmp_path_factory.mktemp('engine') / 'tiny.safetensors'
    checkpoint.save(path, network, config, {'step': 12})
    return str(path)


@pytest.fixture(scope='module')
def engine(weights):
    return Engine(EngineConfig(checkpoint=weights, device='cpu', score_threshold=0.0))


def image(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def test_scene_has_the_size_of_the_image_and_lives_on_the_host(engine):
    scene = engine(image(), CAMERA)
    assert scene.semantic.shape == (HEIGHT, WIDTH)
    assert scene.semantic.dtype == torch.uint8
    assert scene.depth.shape == (HEIGHT, WIDTH)
    assert scene.depth.dtype == torch.float32
    assert len(scene.detection3d) > 0
    assert scene.detection3d.center_cam.device.type == 'cpu'
    scores = scene.detection3d.score
    assert torch.equal(scores, scores.sort(descending=True).values)


def test_engine_equals_the_reference_path(engine, weights):
    network = checkpoint.load(weights).network
    expected = infer(network, torch.from_numpy(image())[None], [CAMERA])[0]
    actual = engine(image(), CAMERA)
    assert (actual.semantic == expected.semantic).float().mean() > 0.999
    assert torch.allclose(actual.depth, expected.depth, rtol=1e-3, equal_nan=True)
    best = actual.detection3d.center_cam[:10], expected.detection3d.center_cam[:10]
    assert torch.allclose(*best, rtol=1e-3, atol=1e-3)


def test_bgr_memory_gives_the_same_scene(engine):
    rgb = image(4)
    bgr_view = np.ascontiguousarray(rgb[..., ::-1])[..., ::-1]
    first, second = engine(rgb, CAMERA), engine(bgr_view, CAMERA)
    assert torch.equal(first.semantic, second.semantic)
    assert torch.equal(first.detection3d.center_cam, second.detection3d.center_cam)


@pytest.mark.parametrize('camera', [None, replace(CAMERA, fx=0.0), replace(CAMERA, v0=np.nan)])
def test_boxes_are_withheld_without_a_valid_calibration(engine, camera):
    with_calibration = engine(image(), CAMERA)
    scene = engine(image(), camera)
    assert scene.detection3d is None
    assert torch.equal(scene.semantic, with_calibration.semantic)


def test_a_camera_of_another_size_is_refused(engine):
    with pytest.raises(ValueError, match='camera is 50×40'):
        engine(image(), Camera(50, 40, 50.0, 50.0, 25.0, 20.0))


def test_threshold_drops_boxes(engine, weights):
    scores = engine(image(), CAMERA).detection3d.score
    middle = float(scores[len(scores) // 2])
    strict = Engine(EngineConfig(checkpoint=weights, device='cpu', score_threshold=middle))
    kept = strict(image(), CAMERA).detection3d.score
    assert 0 < len(kept) < len(scores)
    assert kept.min() >= middle


def test_stages_are_timed(engine):
    engine(image(), CAMERA)
    assert list(engine.stages_ms) == ['upload', 'preprocess', 'network', 'decode', 'download']
    assert all(duration > 0 for duration in engine.stages_ms.values())


def test_status_says_what_runs(engine, weights):
    assert engine.status.device == 'cpu'
    assert engine.status.precision == 'fp32'
    assert engine.status.trained
    assert weights in engine.status.checkpoint
    assert engine.status.metadata == {'step': 12}
    assert engine.status.fallback is None


def test_without_a_checkpoint_it_says_untrained(caplog):
    with caplog.at_level(logging.WARNING):
        engine = Engine(EngineConfig(preset='tag_slim', device='cpu'))
    assert not engine.status.trained
    assert 'UNTRAINED' in engine.status.checkpoint
    assert 'UNTRAINED' in caplog.text


@without_cuda
def test_missing_gpu_is_an_error_a_warning_or_noted(weights, caplog):
    with pytest.raises(InputError, match='no CUDA device'):
        Engine(EngineConfig(checkpoint=weights, device='cuda', on_no_gpu='error'))
    with caplog.at_level(logging.WARNING):
        engine = Engine(EngineConfig(checkpoint=weights, device='cuda', on_no_gpu='warn'))
    assert 'no CUDA device' in caplog.text
    assert engine.status.device == 'cpu'
    assert 'running on the CPU' in engine.status.fallback
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        engine = Engine(EngineConfig(checkpoint=weights, device='auto', on_no_gpu='ignore'))
    assert 'no CUDA device' not in caplog.text
    assert 'running on the CPU' in engine.status.fallback


def test_wrong_settings_are_refused():
    with pytest.raises(InputError, match='outside'):
        EngineConfig(score_threshold=1.5)
    with pytest.raises(InputError, match='preset'):
        EngineConfig(preset='nonsense')


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_half_precision_on_cuda_stays_close_to_the_cpu(weights, engine):
    cuda = Engine(EngineConfig(checkpoint=weights, device='cuda', score_threshold=0.0))
    assert cuda.status.precision == 'fp16'
    expected, actual = engine(image(), CAMERA), cuda(image(), CAMERA)
    assert (actual.semantic == expected.semantic).float().mean() > 0.99
    valid = expected.depth.isfinite() & actual.depth.isfinite()
    relative = (actual.depth - expected.depth).abs()[valid] / expected.depth[valid]
    assert relative.median() < 0.02
