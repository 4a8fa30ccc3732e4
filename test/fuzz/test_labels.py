"""Label files of a dataset that are damaged or absurd: one clear line that names the file."""

from __future__ import annotations

import json
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tag_perception.config import InputError
from tag_perception.core.structures import Camera
from tag_perception.data import annotations
from tag_perception.data.check import check_dataset

from .cases import assert_one_line, cases, memory_taken
from .mutations import damaged, mutated

SIZE = (32, 64)


@pytest.fixture(scope='module')
def tree(write_tree, tmp_path_factory) -> Path:
    return write_tree(tmp_path_factory.mktemp('tree'), frames=1, size=SIZE)


@pytest.fixture(scope='module')
def camera(tree) -> Camera:
    return annotations.read_camera(the_file(tree, 'camera'), SIZE[1], SIZE[0])


def the_file(tree: Path, folder: str) -> Path:
    suffix = {'gtFine': '*labelIds.png'}.get(folder, '*.*')
    return next((tree / folder).rglob(suffix))


def read(kind: str, path: Path, camera: Camera):
    """What the file holds, or None if it is refused in one line that names it."""
    readers = {
        'camera': lambda: annotations.read_camera(path, SIZE[1], SIZE[0]),
        'sensor': lambda: annotations.read_sensor(path),
        'gtBbox3d': lambda: annotations.read_objects(path, camera),
        'leftImg8bit': lambda: annotations.read_image(path),
        'gtFine': lambda: annotations.read_semantic(path, camera),
        'disparity': lambda: annotations.read_disparity(path, camera),
        'timestamp': lambda: annotations.read_timestamp(path),
    }
    try:
        return readers[kind]()
    except InputError as error:
        assert_one_line(error, path)
        return None


def check_values(kind: str, value, camera: Camera) -> None:
    """What was accepted is finite and of the right kind and size."""
    if kind in ('camera', 'sensor'):
        assert value.fault() is None
        assert value.width > 0
        assert value.height > 0
        assert np.isfinite(value.camera_T_vehicle).all()
    elif kind == 'gtBbox3d':
        objects, ignored = value
        assert objects.center_cam.shape == (len(objects), 3)
        assert (objects.size_lwh_m >= 0).all()
        assert ignored.shape[1] == 4
    elif kind in ('gtFine', 'disparity'):
        assert value.shape == (camera.height, camera.width)


@cases(250)
@given(data=st.data(), kind=st.sampled_from(['camera', 'sensor', 'gtBbox3d']))
def test_altered_documents(tree, camera, tmp_path, data, kind):
    good = the_file(tree, 'camera' if kind == 'camera' else 'gtBbox3d')
    path = tmp_path / 'altered.json'
    path.write_text(json.dumps(data.draw(mutated(json.loads(good.read_text())))))
    value = read(kind, path, camera)
    if value is not None:
        check_values(kind, value, camera)


FOLDERS = ['camera', 'gtBbox3d', 'gtFine', 'disparity', 'leftImg8bit', 'timestamp']


@cases(350)
@given(data=st.data(), kind=st.sampled_from(FOLDERS))
def test_damaged_files(tree, camera, tmp_path, data, kind):
    good = the_file(tree, kind)
    path = tmp_path / good.name
    path.write_bytes(data.draw(damaged(good.read_bytes(), hot=64)))
    value = read(kind, path, camera)
    if value is not None:
        check_values(kind, value, camera)


@cases(20)
@given(data=st.data(), folder=st.sampled_from(FOLDERS))
def test_a_damaged_tree_is_checked_to_its_end(tree, tmp_path_factory, data, folder):
    root = tmp_path_factory.mktemp('damaged')
    shutil.copytree(tree, root, dirs_exist_ok=True)
    path = the_file(root, folder)
    path.write_bytes(data.draw(damaged(path.read_bytes(), hot=64)))
    for problem in check_dataset(root).problems:
        assert '\n' not in str(problem)
    shutil.rmtree(root)


@pytest.mark.parametrize('side', [30_000, 2**31 - 1])
def test_a_png_that_claims_to_be_enormous_takes_no_memory(camera, tmp_path, side):
    def chunk(kind: bytes, body: bytes) -> bytes:
        check = zlib.crc32(kind + body).to_bytes(4, 'big')
        return len(body).to_bytes(4, 'big') + kind + body + check

    head = side.to_bytes(4, 'big') * 2 + bytes([16, 0, 0, 0, 0])
    path = tmp_path / 'bomb.png'
    parts = (b'IHDR', head), (b'IDAT', zlib.compress(bytes(1000))), (b'IEND', b'')
    path.write_bytes(b'\x89PNG\r\n\x1a\n' + b''.join(chunk(*part) for part in parts))
    with memory_taken() as peak:
        assert read('disparity', path, camera) is None
    assert peak() < 2**26
