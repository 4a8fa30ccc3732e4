import gc
import itertools
import logging
import sys
import threading
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tag_perception import cli
from tag_perception.config import InputError
from tag_perception.core import checkpoint
from tag_perception.core.inference import infer
from tag_perception.core.network import PRESETS
from tag_perception.core.structures import Camera
from tag_perception.core.tasks import TASKS
from tag_perception.runtime import cpu
from tag_perception.runtime.engine import Engine, EngineConfig, EngineFailure
from tag_perception.runtime.runner import MapMemory

from .comparison import assert_close
from .conftest import awake_network, save

HEIGHT, WIDTH = 96, 192
CAMERA = Camera(WIDTH, HEIGHT, fx=212.0, fy=211.0, u0=103.0, v0=48.0)
PHOTOS = Path(__file__).parents[3] / 'shared' / 'data'
without_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason='this machine has CUDA')


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp('engine')
    return save(awake_network('tag_slim', seed=3), folder / 'tiny.safetensors')


def build(weights, **options):
    settings = {'device': 'cpu', 'precision': 'fp32', 'score_threshold': 0.0, **options}
    return Engine(EngineConfig(checkpoint=weights, **settings))


@pytest.fixture(scope='module')
def engine(weights):
    return build(weights)


def image(seed=0, height=HEIGHT, width=WIDTH):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def reference(weights, picture, camera, device='cpu'):
    """The few lines that every path has to agree with."""
    pixels = torch.from_numpy(np.ascontiguousarray(picture))[None].to(device)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        return infer(checkpoint.load(weights).network.to(device), pixels, [camera])[0].cpu()


def test_scene_has_the_size_of_the_image_and_lives_on_the_host(engine):
    scene = engine(image(), CAMERA)
    assert scene.semantic.shape == (HEIGHT, WIDTH)
    assert scene.semantic.dtype == torch.uint8
    assert scene.depth.shape == (HEIGHT, WIDTH)
    assert scene.depth.dtype == torch.float32
    assert len(scene.detection3d) == 50
    assert scene.detection3d.center_cam.device.type == 'cpu'
    scores = scene.detection3d.score
    assert torch.equal(scores, scores.sort(descending=True).values)


@pytest.mark.parametrize('place', ['cpu', pytest.param('cuda', marks=pytest.mark.gpu)])
def test_no_task_is_forgotten(tmp_path, place):
    """The engine has ways of its own to decode: CONTRIBUTING tells where a new task needs them."""
    if place == 'cuda' and not torch.cuda.is_available():
        pytest.skip('needs a CUDA device')
    network = awake_network('tag_slim', tasks=tuple(TASKS))
    engine = build(save(network, tmp_path / 'all.safetensors'), device=place)
    scene = engine(image(), CAMERA)
    assert [task for task in TASKS if getattr(scene, task) is None] == []


@pytest.mark.parametrize('backend', ['torch', 'onnxruntime', 'openvino'])
@pytest.mark.parametrize('size', [(96, 192), (64, 128), (75, 131), (256, 512)])
def test_every_backend_equals_the_reference_path(weights, backend, size):
    pytest.importorskip(backend)
    engine = build(weights, backend=backend)
    assert engine.status.backend == backend
    camera = CAMERA.resized(size[1], size[0])
    for seed in range(2):
        picture = image(seed, *size)
        assert_close(engine(picture, camera), reference(weights, picture, camera))


def test_dense_heads_give_the_same(weights):
    dense = Engine(
        EngineConfig(weights, device='cpu', precision='fp32', score_threshold=0.0),
        sparse_heads=False,
    )
    assert_close(dense(image(), CAMERA), reference(weights, image(), CAMERA))


@pytest.mark.parametrize('preset', ['dla34_semantic', 'ddrnet23_slim'])
def test_other_networks_equal_the_reference_path(tmp_path, preset):
    path = save(awake_network(preset), tmp_path / 'other.safetensors')
    scene, expected = build(path)(image(), CAMERA), reference(path, image(), CAMERA)
    assert (scene.detection3d is None) == (expected.detection3d is None)
    assert_close(scene, expected)


@pytest.mark.slow
@pytest.mark.parametrize('preset', PRESETS)
@pytest.mark.parametrize(
    ('backend', 'slack'), [('torch', 1), ('onnxruntime', 1), ('openvino', 10)]
)
def test_every_preset_equals_the_reference_path(tmp_path, backend, slack, preset):
    pytest.importorskip(backend)
    path = save(awake_network(preset), tmp_path / 'other.safetensors')
    # Random weights in the deepest networks amplify rounding: OpenVINO in PIDNet-L turns one box
    # by 6e-3 rad, torch in another order of channels by 7e-4.
    scene = build(path, backend=backend)(image(), CAMERA)
    assert_close(scene, reference(path, image(), CAMERA), slack=slack)


def photos():
    found = sorted(PHOTOS.glob('**/*.png')) + sorted(PHOTOS.glob('**/*.jpg'))
    return [path for path in found if 'gt' not in path.name.lower()]


def real_frames(most=4):
    """Up to `most` of the real frames, and a camera for each."""
    from PIL import Image

    for path in photos()[:: max(1, -(-len(photos()) // most))]:
        picture = np.array(Image.open(path).convert('RGB'))
        yield picture, CAMERA.resized(picture.shape[1], picture.shape[0])


@pytest.mark.skipif(not photos(), reason='no real frames beside the project')
@pytest.mark.parametrize('backend', ['torch', 'onnxruntime', 'openvino'])
def test_real_images_equal_the_reference_path(weights, backend):
    pytest.importorskip(backend)
    engine = build(weights, backend=backend)
    for picture, camera in real_frames():
        assert_close(engine(picture, camera), reference(weights, picture, camera))


def test_a_batch_of_mixed_sizes_gives_what_single_calls_give(engine):
    sizes = [(96, 192), (75, 131), (96, 192)]
    pictures = [image(seed, *size) for seed, size in enumerate(sizes)]
    pictures[2] = np.ascontiguousarray(pictures[2][..., ::-1])[..., ::-1]
    cameras = [CAMERA, None, CAMERA]
    scenes = engine.batch(pictures, cameras)
    assert scenes[1].detection3d is None
    for picture, camera, scene in zip(pictures, cameras, scenes, strict=True):
        assert_close(scene, engine(picture, camera))
    assert engine.batch([], []) == []


def test_the_maps_lie_in_the_memory_that_is_offered(engine):
    sizes = ((96, 192), (75, 131))
    memory = [
        MapMemory(np.full(size, 77, np.uint8), np.full(size, -1, np.float32)) for size in sizes
    ]
    pictures = [image(seed, *size) for seed, size in enumerate(sizes)]
    cameras = [CAMERA, None]
    scenes = engine.batch(pictures, cameras, memory)
    for scene, place, picture, camera in zip(scenes, memory, pictures, cameras, strict=True):
        assert scene.semantic.data_ptr() == place.semantic.ctypes.data
        assert scene.depth.data_ptr() == place.depth.ctypes.data
        assert_close(scene, engine(picture, camera))


@pytest.mark.parametrize('task', ['semantic', 'depth'])
def test_the_only_map_of_a_network_lies_in_the_memory_that_is_offered(tmp_path, task):
    engine = build(save(awake_network(f'dla34_{task}'), tmp_path / 'one.safetensors'))
    picture = image(1)
    memory = MapMemory(
        np.full((HEIGHT, WIDTH), 77, np.uint8), np.full((HEIGHT, WIDTH), -1, np.float32)
    )
    (scene,) = engine.batch([picture], [CAMERA], [memory])
    found = getattr(scene, task)
    assert found.data_ptr() == getattr(memory, task).ctypes.data
    assert torch.equal(found, getattr(engine(picture, CAMERA), task))


def test_bgr_memory_gives_the_same_scene(engine):
    rgb = image(4)
    bgr_view = np.ascontiguousarray(rgb[..., ::-1])[..., ::-1]
    first, second = engine(rgb, CAMERA), engine(bgr_view, CAMERA)
    assert torch.equal(first.semantic, second.semantic)
    assert torch.equal(first.detection3d.center_cam, second.detection3d.center_cam)


def test_a_scene_is_not_overwritten_by_the_next(engine):
    first = engine(image(1), CAMERA)
    kept = first.semantic.clone(), first.depth.clone(), first.detection3d.center_cam.clone()
    engine(image(2), CAMERA)
    assert torch.equal(first.semantic, kept[0])
    assert torch.equal(first.depth.nan_to_num(), kept[1].nan_to_num())
    assert torch.equal(first.detection3d.center_cam, kept[2])


@pytest.mark.parametrize('camera', [None, replace(CAMERA, fx=0.0), replace(CAMERA, v0=np.nan)])
def test_boxes_are_withheld_without_a_valid_calibration(engine, camera):
    with_calibration = engine(image(), CAMERA)
    scene = engine(image(), camera)
    assert scene.detection3d is None
    assert torch.equal(scene.semantic, with_calibration.semantic)


def test_a_camera_of_another_size_is_refused(engine):
    with pytest.raises(ValueError, match='camera is 50×40'):
        engine(image(), Camera(50, 40, 50.0, 50.0, 25.0, 20.0))


@pytest.mark.parametrize('wrong', [image()[..., 0], image().astype(np.float32), image()[..., :2]])
def test_what_is_no_rgb_image_is_refused(engine, wrong):
    with pytest.raises(ValueError, match='uint8 image'):
        engine(wrong, None)


def test_threshold_drops_boxes(engine, weights):
    scores = engine(image(), CAMERA).detection3d.score
    middle = float(scores[len(scores) // 2])
    kept = build(weights, score_threshold=middle)(image(), CAMERA).detection3d.score
    assert 0 < len(kept) < len(scores)
    assert kept.min() >= middle


def test_stages_are_timed(engine):
    engine(image(), CAMERA)
    assert list(engine.stages_ms) == ['upload', 'preprocess', 'network', 'decode', 'download']
    assert all(duration > 0 for duration in engine.stages_ms.values())


def test_stages_are_those_of_all_images_of_a_call(engine, monkeypatch):
    now_s = itertools.count()
    monkeypatch.setattr('tag_perception.runtime.runner.time.perf_counter', lambda: next(now_s))
    for images in (3, 1):
        engine.batch([image()] * images, [CAMERA] * images)
        assert set(engine.stages_ms.values()) == {images * 1000.0}


def test_another_thread_may_call_it(engine):
    scenes = []
    thread = threading.Thread(target=lambda: scenes.append(engine(image(), CAMERA)))
    thread.start()
    thread.join()
    assert_close(scenes[0], engine(image(), CAMERA))


def test_status_says_what_runs(engine, weights):
    assert engine.status.device == 'cpu'
    assert engine.status.precision == 'fp32'
    assert engine.status.trained
    assert weights in engine.status.checkpoint
    assert engine.status.metadata == {'step': 12}
    assert engine.status.fallback is None


@pytest.mark.parametrize(
    ('checkpoint', 'preset'), [('random', 'tag_slim'), ('auto', 'dla34_depth')]
)
def test_without_trained_weights_it_says_untrained(caplog, checkpoint, preset):
    state = torch.random.get_rng_state()
    with caplog.at_level(logging.WARNING):
        engine = Engine(EngineConfig(checkpoint, preset, device='cpu', backend='torch'))
    assert not engine.status.trained
    assert engine.status.checkpoint == f'UNTRAINED {preset}'
    assert 'UNTRAINED' in caplog.text
    assert torch.equal(torch.random.get_rng_state(), state)


def test_without_other_backends_torch_runs_and_says_so(weights, monkeypatch, caplog):
    for name in ('onnxruntime', 'openvino'):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(InputError, match=f'install {name}, or set backend to auto or torch'):
            build(weights, backend=name)
    with caplog.at_level(logging.INFO):
        engine = build(weights)
    assert engine.status.backend == 'torch'
    assert 'import of openvino halted' in caplog.text
    assert_close(engine(image(), CAMERA), reference(weights, image(), CAMERA))


def test_the_fastest_backend_is_found_once_and_remembered(weights, monkeypatch, tmp_path, caplog):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    built, slow = [], {'openvino': 1, 'onnxruntime': 3, 'torch': 2}
    clock_s = [0]  # one that a busy machine does not disturb
    monkeypatch.setattr(cpu, 'time', SimpleNamespace(perf_counter=lambda: clock_s[0]))

    def build_fake(name):
        def fake(trunk, dtype):
            built.append((name, dtype))
            network = cpu.TorchTrunk(trunk, dtype)

            def run(image):
                clock_s[0] += slow[name]
                return network(image)

            return run

        return fake

    monkeypatch.setattr(cpu, 'BACKENDS', {name: build_fake(name) for name in slow})
    with caplog.at_level(logging.INFO):
        assert build(weights).status.backend == 'openvino'
    assert [name for name, _ in built] == [*slow, 'openvino']
    assert 'network in openvino: ' in caplog.text
    assert build(weights).status.backend == 'openvino'
    assert len(built) == 5
    monkeypatch.setattr(cpu, 'cpu_name', lambda: 'another CPU')
    slow['openvino'] = 4
    assert build(weights).status.backend == 'torch'
    assert 'was made with another CPU; making it anew' in caplog.text
    monkeypatch.setattr('tag_perception.runtime.engine.multiplies_bf16', lambda: True)
    engine = build(weights, precision='bf16')
    assert engine.status.precision == 'bf16'
    assert built[-1] == ('torch', torch.bfloat16)


def test_pooling_that_onnx_does_not_know_is_written_in_other_words(tmp_path):
    pytest.importorskip('onnxruntime')
    path = save(awake_network('tag_ppm', width=16), tmp_path / 'pooling.safetensors')
    engine = build(path, backend='onnxruntime')
    assert_close(engine(image(), CAMERA), reference(path, image(), CAMERA))


def test_a_network_that_onnx_cannot_say_runs_in_torch(weights, monkeypatch, tmp_path, caplog):
    pytest.importorskip('onnxruntime')

    def unable(*_, **__):
        raise torch.onnx.errors.UnsupportedOperatorError('aten::fold', 17, None)

    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    monkeypatch.setattr(torch.onnx, 'export', unable)
    with caplog.at_level(logging.INFO):
        assert build(weights).status.backend == 'torch'
    assert 'it cannot be written as ONNX' in caplog.text
    with pytest.raises(InputError, match='aten::fold'):
        build(weights, backend='onnxruntime')


def test_the_second_start_reads_the_cache(weights, cache_home, caplog):
    pytest.importorskip('onnxruntime')
    build(weights)
    caplog.clear()
    with caplog.at_level(logging.INFO):
        engine = build(weights)
    assert 'making it' not in caplog.text
    for file in (cache_home / 'tag_perception').iterdir():
        file.write_bytes(file.read_bytes()[:-1])
    again = build(weights)
    assert 'is damaged; making it anew' in caplog.text
    assert_close(again(image(), CAMERA), engine(image(), CAMERA))


def test_what_is_dear_to_make_can_be_made_before_the_first_start(
    weights, monkeypatch, tmp_path, capsys, caplog
):
    pytest.importorskip('onnxruntime')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    options = ['--checkpoint', weights, '--device', 'cpu', '--precision', 'fp32']
    assert cli.main(['build-engine', *options, '--backend', 'onnxruntime']) == 0
    said = capsys.readouterr().out
    assert f'{weights} (' in said
    assert 'onnxruntime in fp32 on CPU' in said
    assert str(tmp_path / 'tag_perception') in said
    caplog.clear()
    with caplog.at_level(logging.INFO):
        build(weights, backend='onnxruntime')
    assert 'making it' not in caplog.text
    assert cli.main(['build-engine', '--backend', 'nonsense']) == 2
    assert cli.main(['build-engine', '--checkpoint', 'no/such/file']) == 2
    assert capsys.readouterr().err.count('\n') == 2


@without_cuda
def test_missing_gpu_is_an_error_a_warning_or_noted(weights, caplog):
    with pytest.raises(InputError, match='no CUDA device'):
        build(weights, device='cuda', on_no_gpu='error')
    with caplog.at_level(logging.WARNING):
        engine = build(weights, device='cuda', on_no_gpu='warn', precision='fp16')
    assert 'no CUDA device' in caplog.text
    assert engine.status.device == 'cpu'
    assert engine.status.precision == 'fp32'
    assert 'running on the CPU' in engine.status.fallback
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        engine = build(weights, device='auto', on_no_gpu='ignore')
    assert 'no CUDA device' not in caplog.text
    assert 'running on the CPU' in engine.status.fallback


def test_wrong_settings_are_refused(weights):
    with pytest.raises(InputError, match='outside'):
        EngineConfig(score_threshold=1.5)
    with pytest.raises(InputError, match='preset'):
        EngineConfig(preset='nonsense')
    with pytest.raises(InputError, match='checkpoint is empty: give a file, auto or random'):
        EngineConfig(checkpoint='')
    with pytest.raises(InputError, match='precision fp16 needs CUDA; on this CPU'):
        build(weights, precision='fp16')


def test_bf16_needs_a_cpu_that_multiplies_it(weights, monkeypatch):
    monkeypatch.setattr('tag_perception.runtime.machine._read', lambda _: 'flags\t: fpu avx2\n')
    assert not cpu.multiplies_bf16()
    with pytest.raises(InputError, match='needs CUDA, or a CPU with AMX or AVX512-BF16'):
        build(weights, precision='bf16')
    assert build(weights, precision='auto').status.precision == 'fp32'
    monkeypatch.setattr(
        'tag_perception.runtime.machine._read', lambda _: 'flags\t: avx512_bf16 amx_bf16\n'
    )
    assert cpu.multiplies_bf16()
    assert cpu.has_bf16_tiles()


@pytest.mark.skipif(not cpu.multiplies_bf16(), reason='this CPU does not multiply bf16')
@pytest.mark.parametrize('backend', ['torch', 'openvino'])
def test_bf16_is_close_to_the_reference_path(weights, backend):
    pytest.importorskip(backend)
    engine = build(weights, precision='bf16', backend=backend)
    assert engine.status.precision == 'bf16'
    for seed in range(3):
        picture = image(seed)
        scene = engine(picture, CAMERA)
        assert scene.depth.dtype == scene.detection3d.score.dtype == torch.float32
        assert_close(scene, reference(weights, picture, CAMERA), 'bf16')
    with pytest.raises(InputError, match='onnxruntime computes in fp32'):
        build(weights, precision='bf16', backend='onnxruntime')


def test_an_error_of_the_gpu_rebuilds_the_engine_once(weights, monkeypatch, caplog):
    class Broken:
        backend, stages_ms = 'cuda graph', {}

        def __call__(self, images, cameras, memory=None):
            raise torch.AcceleratorError('CUDA error: an illegal memory access\nmore lines')

        def close(self):
            raise torch.AcceleratorError('CUDA error: still')

    engine, healthy = build(weights), build(weights)._runner
    engine._device = torch.device('cuda')
    engine._runner = Broken()
    Broken.close, close = lambda self: None, Broken.close
    monkeypatch.setattr(engine, '_build', lambda network: healthy)
    assert engine(image(), CAMERA).semantic is not None
    assert engine.rebuilds == 1
    assert 'CUDA error: an illegal memory access; rebuilding the engine' in caplog.text

    assert engine.problem is None
    Broken.close = close
    engine._runner = Broken()
    with pytest.raises(EngineFailure, match=r'^CUDA error: still, also after .* restart'):
        engine(image(), CAMERA)
    assert engine.rebuilds == 2
    assert engine.problem == 'CUDA error: still, also after the engine was rebuilt; ' + (
        'restart the process'
    )


def test_an_engine_that_fails_again_after_its_rebuild_is_not_rebuilt_for_each_frame(
    weights, monkeypatch
):
    class Broken:
        backend, stages_ms = 'cuda graph', {}

        def __call__(self, images, cameras, memory=None):
            raise torch.AcceleratorError('CUDA error: an illegal memory access')

        def close(self):
            pass

    engine = build(weights)
    engine._device, engine._runner = torch.device('cuda'), Broken()
    monkeypatch.setattr(engine, '_build', lambda network: Broken())
    for _ in range(3):
        with pytest.raises(EngineFailure, match='illegal memory access, also after'):
            engine(image(), CAMERA)
    assert engine.rebuilds == 1


def test_a_closed_engine_says_so(weights):
    engine = build(weights)
    engine.close()
    engine.close()
    assert engine.stages_ms == {}
    with pytest.raises(EngineFailure, match='closed'):
        engine(image(), CAMERA)


def resident_kb():
    fields = Path('/proc/self/status').read_text().split('VmRSS:')[1]
    return int(fields.split()[0])


def calls_do_not_grow_memory(engine, before, after):
    for number in range(before + after):
        scene = engine(image(number % 3), CAMERA)
        assert len(fields(scene)) == 3
        if number == before:
            gc.collect()
            start_kb = resident_kb()
    gc.collect()
    assert resident_kb() <= 1.01 * start_kb


@pytest.mark.skipif(not Path('/proc/self/status').exists(), reason='needs Linux')
def test_memory_stays_flat(engine):
    calls_do_not_grow_memory(engine, 50, 100)


@pytest.mark.slow
@pytest.mark.skipif(not Path('/proc/self/status').exists(), reason='needs Linux')
def test_memory_stays_flat_over_ten_thousand_frames(engine):
    calls_do_not_grow_memory(engine, 100, 9900)
