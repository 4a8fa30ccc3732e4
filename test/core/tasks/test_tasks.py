"""The table of tasks, the sizes of their heads and the Scene that they make together."""

import pytest
import torch

from tag_perception.core import tasks
from tag_perception.core.labels import SKY
from tag_perception.core.structures import View


def outputs(batch: int = 2, device: str = 'cpu') -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        key: torch.randn(batch, channels, 8, 16, generator=generator).to(device)
        for key, channels in (('detection3d', 43), ('semantic', 19), ('depth', 1))
    }


def view(batch: int = 2, device: str = 'cpu') -> View:
    intrinsics = torch.tensor([[500.0, 500.0, 128.0, 64.0]]).expand(batch, 4)
    return View(intrinsics.to(device), image_size=(120, 250), input_size=(64, 128))


def test_every_task_has_the_four_names_and_a_weight():
    for task in tasks.TASKS.values():
        assert all(callable(getattr(task, n)) for n in ('Head', 'encode_target', 'loss', 'decode'))
    assert tasks.LOSS_WEIGHTS == {'detection3d': 1, 'semantic': 100, 'depth': 1}
    assert tasks.LOSS_WEIGHTS.keys() == tasks.TASKS.keys()


@pytest.mark.parametrize(
    ('key', 'hidden', 'channels', 'parameters'),
    [
        # 9 sub-heads of 3×3 + bias and 43 outputs; 3×3 + bias and 19 or 1 outputs
        ('detection3d', 64, 43, 9 * (256 * 64 * 9 + 64) + 64 * 43 + 43),
        ('semantic', 256, 19, 256 * 256 * 9 + 256 + 256 * 19 + 19),
        ('depth', 256, 1, 256 * 256 * 9 + 256 + 256 + 1),
    ],
)
def test_heads_have_the_sizes_of_the_paper(key, hidden, channels, parameters):
    with torch.device('meta'):
        head = tasks.TASKS[key].Head(256, hidden)
        assert head(torch.zeros(1, 256, 128, 256)).shape == (1, channels, 128, 256)
    assert sum(p.numel() for p in head.parameters()) == parameters
    if key == 'detection3d':
        assert parameters == 1_330_475


def test_scene_has_the_size_of_the_image_and_no_depth_in_the_sky():
    scene = tasks.decode(outputs(), view())
    assert scene.semantic.shape == scene.depth.shape == (2, 120, 250)
    assert len(scene.detection3d[1]) == 50
    sky = scene.semantic == SKY
    assert 0 < sky.float().mean() < 1
    assert torch.equal(scene.depth.isnan(), sky)
    single = tasks.TASKS['depth'].decode(outputs()['depth'], view())
    assert torch.equal(scene.depth[~sky], single[~sky])


@pytest.mark.parametrize('missing', ['detection3d', 'semantic', 'depth'])
def test_absent_tasks_are_none(missing):
    given = {k: v for k, v in outputs().items() if k != missing}
    scene = tasks.decode(given | {'auxiliary_semantic': torch.zeros(1)}, view())
    assert getattr(scene, missing) is None
    assert all(getattr(scene, key) is not None for key in given)
    if missing == 'semantic':
        assert scene.depth.isfinite().all()


def test_images_of_a_batch_do_not_see_each_other():
    both, first = tasks.decode(outputs(), view()), {k: v[:1] for k, v in outputs().items()}
    alone = tasks.decode(first, view(batch=1))
    assert torch.equal(both[0].semantic, alone[0].semantic)
    assert torch.equal(both[0].depth.nan_to_num(), alone[0].depth.nan_to_num())
    for name, values in vars(both[0].detection3d).items():
        torch.testing.assert_close(values, getattr(alone[0].detection3d, name))


def test_decoding_reads_nothing_back_from_the_device():
    scene = tasks.decode(outputs(device='meta'), view(device='meta'))
    assert scene.depth.shape == (2, 120, 250)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device')
def test_decoding_is_captured_in_a_cuda_graph():
    """Fixed shapes and no host synchronisation; the replay gives what the CPU gives."""
    given = {k: v.cuda() for k, v in outputs().items()}
    on_gpu = view(device='cuda')
    tasks.decode(given, on_gpu)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        scene = tasks.decode(given, on_gpu)
    graph.replay()
    expected, actual = tasks.decode(outputs(), view()), scene.cpu()
    assert (actual.semantic == expected.semantic).float().mean() > 0.999
    torch.testing.assert_close(actual.detection3d.center_cam, expected.detection3d.center_cam)
