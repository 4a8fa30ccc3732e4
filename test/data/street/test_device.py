"""Rendering on a device other than the host: every tensor stays there, and few steps suffice.

Without a GPU a pretended device stands in: its tensors live on the host, but an operation that
mixes them with tensors of the host fails, as on CUDA.
"""

from collections import Counter

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from tag_perception.data.street import StreetStream, render, render_frame, start_method

SIZE = (64, 128)
AWAY = 'meta'
"""Name of the pretended device; one that needs no driver."""
VIEWS = ('view', 'select', 'slice', 'expand', 'transpose', 'permute', 'detach', 'unbind', 'alias')
"""Operations that start nothing on a device."""

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')


class Far(torch.Tensor):
    """A tensor of the pretended device."""

    @staticmethod
    def __new__(cls, host):
        layout = {'strides': host.stride(), 'storage_offset': host.storage_offset()}
        return torch.Tensor._make_wrapper_subclass(
            cls, host.shape, dtype=host.dtype, device=AWAY, **layout
        )

    def __init__(self, host):
        self.host = host

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        raise AssertionError(f'{operation} outside of the device')


class Device(TorchDispatchMode):
    """The pretended device; counts what it is given to do."""

    def __init__(self):
        super().__init__()
        self.launched, self.waits = Counter(), 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs, name = dict(kwargs or {}), operation.overloadpacket.__name__
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        far = [x for x in tensors if isinstance(x, Far)]
        for near in (x for x in tensors if not isinstance(x, Far)):
            assert not (far and near.dim()), f'{operation} mixes two devices'
        target = kwargs.get('device')
        if target is not None:
            kwargs['device'] = 'cpu'
        args, kwargs = tree_map(lambda x: x.host if isinstance(x, Far) else x, (args, kwargs))
        result = operation(*args, **kwargs)
        stays = bool(far) if target is None else torch.device(target).type == AWAY
        if far or stays:
            self.launched[name] += not name.startswith(VIEWS)
            copied = name == '_to_copy' and stays != bool(far)
            self.waits += copied or name in ('nonzero', '_local_scalar_dense')
        if not stays or name == '_local_scalar_dense':
            return result
        if operation._schema.is_mutable:
            return next(x for x in far if x.host is args[0])
        return tree_map(lambda x: Far(x) if isinstance(x, torch.Tensor) else x, result)


def assert_equal(one, other):
    for name in ('image', 'semantic', 'depth', 'ignore_px'):
        assert np.array_equal(getattr(one, name), getattr(other, name), equal_nan=name == 'depth')
    for name in ('class_id', 'center_cam', 'size_lwh_m', 'rotation_cam', 'box_2d_px'):
        assert torch.equal(getattr(one.detection3d, name), getattr(other.detection3d, name)), name


def test_no_tensor_is_on_the_wrong_device():
    expected = [render(3, index, SIZE) for index in range(3)]
    with Device():
        for index, sample in enumerate(expected):
            assert_equal(render(3, index, SIZE, device=AWAY), sample)


def test_the_work_given_to_a_device_does_not_grow_with_the_scene():
    """What costs a GPU its speed is thousands of small operations, and waiting for each."""
    launched, waits, things = [], [], []
    for index in range(-1, 5):  # the first one fills caches
        with Device() as device:
            rendering = render_frame(3, abs(index), SIZE, device=AWAY)
            assert len(rendering.annotation.label_id)
        launched.append(sum(device.launched.values()))
        waits.append(device.waits)
        things.append(len(rendering.world.standing.shape))
    assert max(things) > min(things) + 50
    assert max(launched[1:]) < min(launched[1:]) + 50
    assert max(launched[1:]) < 920
    assert max(waits[1:]) < 40


def test_processes_that_render_on_a_gpu_are_not_forked():
    assert start_method('cpu', 4) is None
    assert start_method('cuda', 0) is None
    assert start_method('cuda', 4) == 'spawn'


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize('index', range(4))
def test_cuda_renders_what_the_cpu_renders(index):
    size = (512, 1024)
    ours, theirs = (render_frame(3, index, size, device=name) for name in ('cuda', 'cpu'))
    assert ours.picture.image.is_cuda
    label, expected = ours.picture.label.cpu(), theirs.picture.label
    assert (label != expected).float().mean() < 1e-4
    depth, true = ours.picture.depth.cpu(), theirs.picture.depth
    both = (label == expected) & ~true.isnan()
    assert ((depth / true - 1).abs()[both] < 1e-4).float().mean() > 0.9999
    difference = (ours.picture.image.cpu().int() - theirs.picture.image.int()).abs()
    assert (difference > 2).float().mean() < 1e-3
    mine, other = ours.annotation, theirs.annotation
    assert np.array_equal(mine.instance_id, other.instance_id)
    assert np.array_equal(mine.center_world, other.center_world)
    assert np.abs(mine.modal_px - other.modal_px).max(initial=0) <= 1


@pytest.mark.gpu
@needs_cuda
def test_loader_workers_render_on_cuda():
    stream = StreetStream(3, SIZE, length=4, device='cuda')
    loader = torch.utils.data.DataLoader(
        stream, None, num_workers=2, multiprocessing_context=start_method('cuda', 2)
    )
    for index, sample in enumerate(loader):
        assert_equal(sample, stream[index])
