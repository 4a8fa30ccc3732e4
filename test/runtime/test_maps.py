import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tag_perception.core import tasks
from tag_perception.core.labels import SKY
from tag_perception.core.preprocess import view_of
from tag_perception.core.structures import Camera
from tag_perception.runtime.maps import decode_maps
from tag_perception.runtime.runner import MapMemory

from .test_labelling import smooth_logits

SIDES = st.tuples(st.integers(1, 70), st.integers(1, 90))


def raw_maps(seed, height, width):
    """What a network says, with some sky."""
    logits = smooth_logits(seed, 1, height, width)
    logits[:, SKY] += 3
    return {'semantic': logits, 'depth': smooth_logits(seed + 1, 1, height, width, 1)}


def expected_of(outputs, size):
    camera = Camera(size[1], size[0], 100.0, 100.0, 0.0, 0.0)
    return tasks.decode(outputs, view_of([camera], (8, 8), 'cpu'))[0]


def stained(size):
    return MapMemory(np.full(size, 77, np.uint8), np.full(size, -1, np.float32))


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 10_000), cells=SIDES, size=SIDES, multiple=st.booleans())
def test_maps_equal_those_of_the_reference(seed, cells, size, multiple):
    if multiple:
        size = (8 * cells[0], 8 * cells[1])
    outputs, memory = raw_maps(seed, *cells), stained(size)
    scene, expected = decode_maps(outputs, memory), expected_of(outputs, size)
    same = scene.semantic == expected.semantic
    assert same.float().mean() > 0.999
    np.testing.assert_allclose(scene.depth[same], expected.depth[same], rtol=1e-4)
    assert torch.equal(scene.depth.isnan(), scene.semantic == SKY)


@pytest.mark.parametrize('task', ['semantic', 'depth', 'none'])
def test_what_the_network_lacks_is_none_and_its_memory_left_alone(task):
    size = (64, 96)
    memory, untouched = stained(size), stained(size)
    outputs = {key: raw for key, raw in raw_maps(5, 8, 12).items() if key == task}
    scene, expected = decode_maps(outputs, memory), expected_of(outputs, size)
    assert scene.detection3d is None
    for key in ('semantic', 'depth'):
        map_, place = getattr(scene, key), getattr(memory, key)
        if key == task:
            assert map_.data_ptr() == place.ctypes.data
            np.testing.assert_allclose(map_, getattr(expected, key), rtol=1e-4)
        else:
            assert map_ is None
            np.testing.assert_array_equal(place, getattr(untouched, key))


def test_half_precision_is_decoded_in_full():
    outputs = {key: raw.bfloat16() for key, raw in raw_maps(6, 8, 12).items()}
    scene = decode_maps(outputs, MapMemory.of_size((64, 96)))
    full = expected_of({key: raw.float() for key, raw in outputs.items()}, (64, 96))
    assert torch.equal(scene.semantic, full.semantic)
    np.testing.assert_allclose(scene.depth, full.depth, rtol=1e-4)
