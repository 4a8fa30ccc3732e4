"""The CUDA engine; what is arithmetic of batches and packing is tested without a GPU, too."""

import gc
from collections import OrderedDict
from dataclasses import fields

import pytest
import torch

from tag_perception.config import InputError
from tag_perception.core import checkpoint
from tag_perception.core.preprocess import view_of
from tag_perception.core.structures import Camera, Objects3D
from tag_perception.core.tasks import decode
from tag_perception.runtime import cuda, passes
from tag_perception.runtime.engine import DTYPES, Engine, EngineConfig
from tag_perception.runtime.runner import EngineFailure
from tag_perception.runtime.trunk import Trunk

from .comparison import assert_close
from .conftest import awake_network, save
from .test_engine import CAMERA, HEIGHT, WIDTH, image, photos, real_frames, reference

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')


def on_gpu(test):
    return pytest.mark.gpu(needs_cuda(test))


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    network = awake_network('tag_slim', seed=3)
    return save(network, tmp_path_factory.mktemp('cuda') / 'tiny.safetensors')


def build(weights, precision='auto', backend='auto', **options):
    return Engine(
        EngineConfig(
            weights, device='cuda', precision=precision, backend=backend, score_threshold=0.0
        ),
        **options,
    )


def needs_kernels(backend, precision):
    if backend == 'triton':
        reason = cuda.why_no_kernels(torch.device('cuda'), DTYPES[precision])
        if reason is not None:
            pytest.skip(reason)


every_way = pytest.mark.parametrize(
    ('backend', 'precision'),
    [
        ('torch', 'fp32'), ('torch', 'fp16'), ('torch', 'bf16'),
        ('triton', 'fp16'), ('triton', 'bf16'),
    ],
)  # fmt: skip


@on_gpu
@every_way
@pytest.mark.parametrize('sparse_heads', [True, False])
@pytest.mark.parametrize('size', [(96, 192), (64, 128), (75, 131)])
def test_graph_equals_the_reference_path(weights, backend, precision, sparse_heads, size):
    needs_kernels(backend, precision)
    engine = build(weights, precision, backend, sparse_heads=sparse_heads)
    assert engine.status.backend.removeprefix('triton, ') == 'cuda graph'
    camera = CAMERA.resized(size[1], size[0])
    for seed in range(3):
        picture = image(seed, *size)
        expected = reference(weights, picture, camera, 'cuda')
        assert_close(engine(picture, camera), expected, precision)


@on_gpu
def test_kernels_are_taken_where_they_work_and_refused_elsewhere(weights, monkeypatch):
    needs_kernels('triton', 'fp16')
    assert build(weights).status.backend == 'triton, cuda graph'
    assert build(weights, 'fp32').status.backend == 'cuda graph'
    with pytest.raises(InputError, match='triton: the kernels compute in half precision; set'):
        build(weights, 'fp32', 'triton')
    monkeypatch.setattr(cuda, 'KERNELS_SINCE', (99, 0))
    assert build(weights).status.backend == 'cuda graph'
    with pytest.raises(InputError, match=r'not 99\.0 or more'):
        build(weights, backend='triton')


@on_gpu
def test_what_torch_compiles_equals_the_reference_path(weights):
    network = checkpoint.load(weights).network
    runner = cuda.CudaRunner(Trunk(network), torch.device('cuda'), torch.float16, 'compiled')
    for picture, camera in [(image(), CAMERA), *real_frames()]:
        (scene,) = runner([picture], [camera])
        assert_close(scene, reference(weights, picture, camera, 'cuda'), 'fp16')
    assert runner.backend == 'compiled, cuda graph'


@on_gpu
@pytest.mark.skipif(not photos(), reason='no real frames beside the project')
@every_way
def test_real_images_equal_the_reference_path(weights, backend, precision):
    needs_kernels(backend, precision)
    engine = build(weights, precision, backend)
    for picture, camera in real_frames():
        expected = reference(weights, picture, camera, 'cuda')
        assert_close(engine(picture, camera), expected, precision)


@on_gpu
def test_a_batch_of_mixed_images_gives_what_single_calls_give(weights):
    engine = build(weights, 'fp32')
    pictures = [image(0), image(1, 75, 131), image(2)[..., ::-1], image(3)]
    cameras = [CAMERA, None, CAMERA, CAMERA]
    for picture, camera, scene in zip(
        pictures, cameras, engine.batch(pictures, cameras), strict=True
    ):
        assert_close(scene, engine(picture, camera))


@on_gpu
def test_what_is_prepared_needs_no_first_pass(weights, caplog):
    engine = build(weights)
    engine.prepare(3)
    height, width = engine.status.network.input_size
    assert list(engine._runner._graphs) == [(count, height, width) for count in (1, 2, 3)]
    caplog.set_level('INFO')
    engine.batch([image(0, height, width), image(1, height, width)[..., ::-1]], [None, None])
    assert 'preparing' not in caplog.text


@on_gpu
def test_a_scene_is_not_overwritten_by_the_next(weights):
    engine = build(weights)
    first = engine(image(1), CAMERA)
    kept = first.semantic.clone(), first.detection3d.center_cam.clone()
    for seed in range(5):
        engine(image(seed + 2), CAMERA)
    assert torch.equal(first.semantic, kept[0])
    assert torch.equal(first.detection3d.center_cam, kept[1])


@on_gpu
def test_stages_are_timed_inside_the_graph(weights):
    engine = build(weights)
    engine(image(), CAMERA)
    assert list(engine.stages_ms) == ['upload', 'preprocess', 'network', 'decode', 'download']
    assert all(0 < duration < 1000 for duration in engine.stages_ms.values())


@on_gpu
def test_graphs_are_bounded_and_memory_is_given_back(weights, caplog):
    caplog.set_level('INFO')
    left = []
    for _ in range(3):
        engine = build(weights)
        for extra in range(cuda.MAX_GRAPHS + 2):
            engine(image(0, HEIGHT, WIDTH + extra), None)
        assert len(engine._runner._graphs) == cuda.MAX_GRAPHS
        assert 'dropped' in caplog.text
        engine.close()
        gc.collect()
        torch.cuda.empty_cache()
        left.append(torch.cuda.memory_allocated())
    assert left[2] == left[1]  # the first one leaves what cuBLAS keeps for a stream


def memory_stays_flat(engine, before, after):
    for _ in range(before):
        engine(image(), CAMERA)
    start = torch.cuda.memory_reserved()
    for _ in range(after):
        engine(image(), CAMERA)
    assert torch.cuda.memory_reserved() <= 1.01 * start


@on_gpu
def test_memory_of_the_device_stays_flat(weights):
    memory_stays_flat(build(weights), 100, 400)


@on_gpu
@pytest.mark.slow
def test_memory_of_the_device_stays_flat_over_ten_thousand_frames(weights):
    memory_stays_flat(build(weights), 100, 9900)


@on_gpu
def test_where_no_graph_can_be_captured_it_works_without(weights, monkeypatch, caplog):
    def unable(*_, **__):
        raise RuntimeError('capture is not supported')

    monkeypatch.setattr(torch.cuda, 'graph', unable)
    engine = build(weights, 'fp32')
    assert engine.status.backend == 'torch'
    assert 'no CUDA graph' in caplog.text
    assert_close(engine(image(), CAMERA), reference(weights, image(), CAMERA, 'cuda'))


def test_what_is_packed_for_the_download_comes_out_again():
    torch.manual_seed(0)
    outputs = {'detection3d': torch.randn(2, 43, 8, 16), 'semantic': torch.randn(2, 19, 8, 16)}
    scene = decode(outputs, view_of([CAMERA, CAMERA], (64, 128), 'cpu'))
    packed = passes.pack(scene)
    assert packed.keys() == {'semantic', 'boxes'}
    assert packed['boxes'].shape == (2, 50, 17)
    for index in range(2):
        again = passes.unpack({name: tensor[index] for name, tensor in packed.items()})
        assert again.depth is None
        assert torch.equal(again.semantic, scene.semantic[index])
        for name, value in vars(scene.detection3d).items():
            assert getattr(again.detection3d, name).dtype == value.dtype
            assert torch.equal(getattr(again.detection3d, name), value[index])
    assert passes.WIDTHS.keys() == {field.name for field in fields(Objects3D)}


class ShortOfMemory(cuda.CudaRunner):
    """Batches as the real one, with passes that need `per_image` of a memory of 100."""

    def __init__(self, per_image: int, kept: int = 0) -> None:
        self.per_image, self.kept, self.passes = per_image, kept, []
        self._graphs, self._max_batch, self.stages_ms = OrderedDict({'old': None}), None, {}

    def _pass_for(self, images):
        def run(images, cameras, stages_ms):
            if len(images) * self.per_image + self.kept * len(self._graphs) > 100:
                raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2 GiB\nmore')
            self.passes.append(len(images))
            return list(images)

        return run

    def _forget(self):
        self._graphs.clear()


def test_out_of_memory_makes_batches_smaller_for_good(caplog):
    runner = ShortOfMemory(per_image=40)
    images = [(torch.full((2, 3, 3), n), False) for n in range(7)]
    cameras = [Camera(3, 2, 1, 1, 1, 1)] * 7
    assert [int(i[0, 0, 0]) for i, _ in runner._batch(images, cameras)] == list(range(7))
    assert runner.passes == [1] * 7
    assert 'batches of at most' in caplog.text
    caplog.clear()
    runner._batch(images, cameras)
    assert not caplog.text


def test_out_of_memory_gives_up_other_graphs_first():
    runner = ShortOfMemory(per_image=60, kept=50)
    image = torch.zeros(2, 3, 3), False
    assert len(runner._batch([image], [Camera(3, 2, 1, 1, 1, 1)])) == 1


def test_no_memory_for_a_single_image_is_one_clear_error():
    runner = ShortOfMemory(per_image=200)
    with pytest.raises(EngineFailure, match=r'one image of 3×2: CUDA out of memory.*; end other'):
        runner._batch([(torch.zeros(2, 3, 3), False)] * 4, [Camera(3, 2, 1, 1, 1, 1)] * 4)
