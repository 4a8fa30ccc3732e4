"""The CUDA engine on the CPU: graphs, their cache and their memory, held to the reference path."""

from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tag_perception.core import checkpoint
from tag_perception.core.preprocess import view_of
from tag_perception.runtime import cuda, passes
from tag_perception.runtime.branch import Branch
from tag_perception.runtime.runner import EngineFailure
from tag_perception.runtime.trunk import Trunk

from .comparison import assert_close
from .conftest import awake_network, save
from .fake_cuda import fake_cuda as fake_cuda
from .test_engine import CAMERA, HEIGHT, WIDTH, image, reference

CPU = torch.device('cpu')


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    network = awake_network('tag_slim', seed=3, width=16)
    return save(network, tmp_path_factory.mktemp('graph') / 'tiny.safetensors')


@pytest.fixture
def build(weights, fake_cuda):
    def make(sparse=True):
        return cuda.CudaRunner(Trunk(checkpoint.load(weights).network, sparse), CPU, torch.float32)

    return make


@pytest.mark.parametrize('sparse', [True, False])
@pytest.mark.parametrize('size', [(96, 192), (64, 128), (75, 131)])
def test_replayed_graph_equals_the_reference_path(build, weights, fake_cuda, sparse, size):
    runner = build(sparse)
    camera = CAMERA.resized(size[1], size[0])
    for seed in range(3):
        picture = image(seed, *size)
        (scene,) = runner([picture], [camera])
        assert_close(scene, reference(weights, picture, camera))
    assert runner.backend == 'cuda graph'
    assert (len(fake_cuda.captured_in), fake_cuda.replays) == (1, 3)
    assert list(runner.stages_ms) == ['upload', 'preprocess', 'network', 'decode', 'download']
    assert all(duration > 0 for duration in runner.stages_ms.values())


def test_calibration_is_read_anew_in_each_replay(build, weights):
    runner = build()
    longer = replace(CAMERA, fx=2 * CAMERA.fx, fy=2 * CAMERA.fy)
    for camera in (CAMERA, longer, CAMERA):
        assert_close(runner([image()], [camera])[0], reference(weights, image(), camera))


def test_batch_of_mixed_images_gives_what_single_calls_give(build, weights, fake_cuda):
    runner = build()
    pictures = [image(0), image(1, 75, 131), image(2)[..., ::-1], image(3), image(4)]
    cameras = [CAMERA.resized(p.shape[1], p.shape[0]) for p in pictures]
    for picture, camera, scene in zip(pictures, cameras, runner(pictures, cameras), strict=True):
        assert_close(scene, reference(weights, picture, camera))
    assert sorted(key[0] for key in runner._graphs) == [1, 4]  # a pass for each size
    assert len(set(map(id, fake_cuda.captured_in))) == 1  # all in the same memory


def test_scene_is_not_overwritten_by_the_next(build):
    runner = build()
    (first,) = runner([image(1)], [CAMERA])
    kept = first.semantic.clone(), first.depth.clone(), first.detection3d.center_cam.clone()
    for seed in range(3):
        runner([image(seed + 2)], [CAMERA])
    assert torch.equal(first.semantic, kept[0])
    assert torch.equal(first.depth.nan_to_num(), kept[1].nan_to_num())
    assert torch.equal(first.detection3d.center_cam, kept[2])


def test_graphs_are_kept_by_size_and_bounded(build, fake_cuda, caplog):
    caplog.set_level('INFO')
    runner = build()

    def call(width):
        camera = CAMERA.resized(width, 64)
        runner([image(0, 64, width)], [camera])

    first = 100
    for extra in range(cuda.MAX_GRAPHS):
        call(first + extra)
    call(first)  # in use again, so that the second is now the oldest
    assert len(fake_cuda.captured_in) == cuda.MAX_GRAPHS
    assert 'dropped' not in caplog.text
    call(first + cuda.MAX_GRAPHS)
    assert len(runner._graphs) == cuda.MAX_GRAPHS
    assert f'dropped: batches of 1 of {first + 1}×64' in caplog.text
    call(first)
    assert len(fake_cuda.captured_in) == cuda.MAX_GRAPHS + 1
    call(first + 1)
    assert len(fake_cuda.captured_in) == cuda.MAX_GRAPHS + 2


def test_where_no_graph_can_be_captured_it_works_without(build, weights, fake_cuda, caplog):
    def refuse():
        raise RuntimeError('capture is not supported\nmore lines')

    fake_cuda.refuse = refuse
    runner = build()
    for seed in range(2):
        assert_close(runner([image(seed)], [CAMERA])[0], reference(weights, image(seed), CAMERA))
    assert (runner.backend, fake_cuda.replays) == ('torch', 0)
    assert 'no CUDA graph, which costs time: capture is not supported\n' in caplog.text


def test_without_memory_for_a_capture_batches_become_smaller(build, weights, fake_cuda, caplog):
    runner = build()
    runner([image(0, 64, 128)], [CAMERA.resized(128, 64)])
    refused = []

    def refuse():
        if len(refused) < 2:  # a batch of 4, and then one of 2
            refused.append(1)
            raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2 GiB')

    fake_cuda.refuse = refuse
    pictures = [image(seed) for seed in range(4)]
    for picture, scene in zip(pictures, runner(pictures, [CAMERA] * 4), strict=True):
        assert_close(scene, reference(weights, picture, CAMERA))
    assert list(runner._graphs) == [(1, HEIGHT, WIDTH)]  # the others were given up
    assert 'batches of at most 1 from now on' in caplog.text
    assert fake_cuda.captured_in[-1] is fake_cuda.pools[-1]  # a pool of its own, after the loss
    assert len(fake_cuda.pools) == 3


def test_without_memory_for_one_image_it_says_so_and_lives_on(build, weights, fake_cuda):
    runner = build()

    def refuse():
        raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2 GiB')

    fake_cuda.refuse = refuse
    with pytest.raises(EngineFailure, match=f'one image of {WIDTH}×{HEIGHT}: CUDA out of memory'):
        runner([image()], [CAMERA])
    fake_cuda.refuse = lambda: None
    assert_close(runner([image()], [CAMERA])[0], reference(weights, image(), CAMERA))


class Strays(TorchDispatchMode):
    """Notes operations that leave more than a number on the host."""

    def __init__(self) -> None:
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        results = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(results):
            if isinstance(tensor, torch.Tensor) and tensor.is_cpu and tensor.dim():
                self.found.append(func)
        return results


@pytest.mark.parametrize('sparse', [True, False])
def test_all_that_is_captured_lies_on_the_device(weights, fake_cuda, sparse):
    """Tensors of the device `meta` have no values, and do not mix with those of the host."""
    meta = torch.device('meta')
    trunk = Trunk(checkpoint.load(weights).network, sparse)
    runner = object.__new__(cuda.CudaRunner)
    runner._device, runner._dtype, runner._names = meta, torch.float16, trunk.names
    runner._peak_head = trunk.peak_head and trunk.peak_head.to(meta, torch.float16)
    runner._network = trunk.to(meta, torch.float16)
    runner._normalise = cuda._choose_normaliser('torch', trunk.config.input_size, torch.float16)
    runner._branch = Branch(torch.cuda.Stream())
    runner._label = lambda logits, size: torch.zeros(2, *size, dtype=torch.uint8, device=meta)
    view = view_of([CAMERA, CAMERA], trunk.config.input_size, meta)
    images = torch.empty(2, HEIGHT, WIDTH, 3, dtype=torch.uint8, device=meta)
    bgr = torch.empty(2, dtype=torch.uint8, device=meta)
    marks = []
    with torch.inference_mode():
        runner._compute(images, bgr, view, marks.append)  # warms up
        with Strays() as strays:
            scene = runner._compute(images, bgr, view, marks.append)
            packed = passes.pack(scene)
    assert strays.found == []
    assert marks == 2 * ['preprocess', 'network', 'maps', 'decode']
    assert {name: tuple(tensor.shape) for name, tensor in packed.items()} == {
        'semantic': (2, HEIGHT, WIDTH),
        'depth': (2, HEIGHT, WIDTH),
        'boxes': (2, 50, 17),
    }
    assert {tensor.device for tensor in packed.values()} == {meta}
    assert packed['depth'].dtype == packed['boxes'].dtype == torch.float32
