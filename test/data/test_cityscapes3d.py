import copy
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from cityscapesscripts.helpers.box3dImageTransform import CRS_C, Box3dImageTransform
from cityscapesscripts.helpers.box3dImageTransform import Camera as OfficialCamera
from cityscapesscripts.helpers.labels import id2label
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pyquaternion import Quaternion

from tag_perception.config import InputError
from tag_perception.core.labels import DETECTION_CLASSES
from tag_perception.core.structures import Objects3D
from tag_perception.data.annotations import (
    read_camera,
    read_disparity,
    read_objects,
    read_semantic,
    read_sensor,
    result_document,
)
from tag_perception.data.cityscapes3d import Cityscapes3D, find_frames

REAL = Path(__file__).parents[2] / '../shared/data'
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason='no ../shared/data on this machine')
FILES = ('leftImg8bit', 'camera', 'semantic', 'depth', 'detection3d')


@pytest.fixture(scope='module')
def tree(write_tree, tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp('cityscapes'), frames=3)


def file_of(tree, what, index=0):
    frame = Cityscapes3D(tree, 'val').frames[index]
    return frame.image_path if what == 'leftImg8bit' else frame.path(what)


@pytest.fixture
def fresh(write_tree, tmp_path):
    return write_tree(tmp_path, frames=1)


def test_boxes_agree_with_the_official_transform_into_frame_c(tree):
    for index, sample in enumerate(Cityscapes3D(tree, 'val')):
        document = json.loads(file_of(tree, 'detection3d', index).read_text())
        sensor = document['sensor']
        del sensor['baseline']
        transform = Box3dImageTransform(OfficialCamera(**sensor, imgWidth=256, imgHeight=128))
        assert len(sample.detection3d) == len(document['objects']) == 6
        for i, box in enumerate(document['objects']):
            three = box['3d']
            transform.initialize_box(three['dimensions'], three['rotation'], three['center'])
            size, center, rotation = transform.get_parameters(CRS_C)
            objects = sample.detection3d
            assert DETECTION_CLASSES[objects.class_id[i]] == box['label']
            assert np.allclose(objects.center_cam[i], center, atol=1e-5)
            assert np.allclose(objects.size_lwh_m[i], size, atol=1e-6)
            q = Quaternion(objects.rotation_cam[i].double().numpy())
            assert Quaternion.absolute_distance(q.normalised, rotation) < 1e-6
            x, y, w, h = box['2d']['modal']
            assert np.allclose(objects.box_2d_px[i], [x, y, x + w, y + h], atol=1e-4)


def test_result_document_is_the_inverse_of_reading(tree):
    for index, sample in enumerate(Cityscapes3D(tree, 'val')):
        original = json.loads(file_of(tree, 'detection3d', index).read_text())['objects']
        written = result_document(sample.detection3d, sample.camera)['objects']
        for a, b in zip(original, written, strict=True):
            assert a['label'] == b['label']
            assert b['score'] == 1
            assert np.allclose(a['3d']['center'], b['3d']['center'], atol=1e-5)
            assert np.allclose(a['2d']['amodal'], b['2d']['amodal'], atol=1e-2)
            assert np.allclose(a['2d']['modal'], b['2d']['modal'], atol=1e-4)
            distance = Quaternion(a['3d']['rotation']).inverse * Quaternion(b['3d']['rotation'])
            assert abs(abs(distance.normalised.w) - 1) < 1e-9


def test_result_document_clamps_scores_and_leaves_out_what_json_cannot_hold(tree):
    sample = Cityscapes3D(tree, 'val')[0]
    objects = sample.detection3d
    objects.score[0], objects.center_cam[1, 2] = 1.7, float('nan')
    boxes = result_document(objects, sample.camera)['objects']
    assert len(boxes) == 5
    assert boxes[0]['score'] == 1.0
    json.dumps(boxes, allow_nan=False)
    assert result_document(Objects3D.empty(), sample.camera) == {'objects': []}


def test_semantic_ids_map_as_in_the_official_table(tree, tmp_path):
    camera = Cityscapes3D(tree, 'val')[0].camera
    ids = np.arange(camera.width * camera.height).reshape(camera.height, camera.width) % 34
    Image.fromarray(ids.astype(np.uint8)).save(tmp_path / 'ids.png')
    expected = np.vectorize(lambda i: id2label[i].trainId)(ids)
    assert np.array_equal(read_semantic(tmp_path / 'ids.png', camera), expected)


def test_depth_follows_the_disparity_formula_and_keeps_far_values(tree, tmp_path):
    camera = Cityscapes3D(tree, 'val')[0].camera
    codes = np.zeros((camera.height, camera.width), np.uint16)
    codes[0, :5] = 0, 1, 2, 257, 65535
    Image.fromarray(codes).save(tmp_path / 'd.png')
    depth = read_disparity(tmp_path / 'd.png', camera)
    fb = camera.fx * camera.baseline_m
    assert np.isnan(depth[0, :2]).all()
    assert np.allclose(depth[0, 2:5], [fb * 256, fb, fb * 256 / 65534])
    assert np.isnan(depth[1:]).all()
    assert depth.dtype == np.float32


def test_missing_labels_are_none_and_needed_ones_an_error(fresh):
    for what in ('semantic', 'depth', 'detection3d'):
        shutil.rmtree(fresh / {'semantic': 'gtFine', 'depth': 'disparity'}.get(what, 'gtBbox3d'))
    sample = Cityscapes3D(fresh, 'val')[0]
    assert sample.semantic is sample.depth is sample.detection3d is sample.ignore_px is None
    with pytest.raises(InputError, match=r'_gtFine_labelIds\.png: no such file'):
        Cityscapes3D(fresh, 'val', need=('semantic',))[0]


def test_empty_annotations_are_read(fresh):
    path = file_of(fresh, 'detection3d')
    document = json.loads(path.read_text()) | {'objects': [], 'ignore': []}
    path.write_text(json.dumps(document))
    sample = Cityscapes3D(fresh, 'val')[0]
    assert len(sample.detection3d) == 0
    assert sample.ignore_px.shape == (0, 4)
    assert sample.ignore_px.dtype == np.float32


def test_classes_without_a_score_become_ignore_regions(fresh):
    path = file_of(fresh, 'detection3d')
    document = json.loads(path.read_text())
    document['objects'][2]['label'] = 'trailer'
    path.write_text(json.dumps(document))
    sample = Cityscapes3D(fresh, 'val')[0]
    assert len(sample.detection3d) == 5
    x, y, w, h = document['objects'][2]['2d']['modal']
    assert np.allclose(sample.ignore_px[-1], [x, y, x + w, y + h])


def test_jpeg_images_are_read_and_png_wins(fresh):
    png = file_of(fresh, 'leftImg8bit')
    pixels = np.array(Image.open(png))
    Image.fromarray(pixels).save(png.with_suffix('.jpg'), quality=95)
    assert np.array_equal(Cityscapes3D(fresh, 'val')[0].image, pixels)
    png.unlink()
    jpeg = Cityscapes3D(fresh, 'val')[0].image
    assert jpeg.shape == pixels.shape
    assert not np.array_equal(jpeg, pixels)


def test_a_sequence_frame_takes_the_calibration_of_its_annotated_frame(write_tree, tmp_path):
    write_tree(tmp_path, frames=2)
    annotated, other = Cityscapes3D(tmp_path, 'val').frames
    other.path('camera').unlink()
    text = annotated.path('camera').read_text()
    folder = tmp_path / 'leftImg8bit_sequence/val/testburg'
    folder.mkdir(parents=True)
    for number in (0, 18, 19, 29, 30):
        name = f'testburg_000000_{number:06d}_leftImg8bit.png'
        shutil.copy(annotated.image_path, folder / name)
    frames = find_frames(tmp_path, 'leftImg8bit_sequence')
    assert [int(frame.number) for frame in frames] == [0, 18, 19, 29, 30]
    for frame in frames[:4]:
        assert frame.camera(256, 128).fx == json.loads(text)['intrinsic']['fx']
    with pytest.raises(InputError, match=r'000030_camera\.json: no such file'):
        frames[4].camera(256, 128)
    assert frames[1].stamp_ns() == round(18 / 17 * 1e9)
    path = tmp_path / 'timestamp_sequence/val/testburg/testburg_000000_000018_timestamp.txt'
    path.parent.mkdir(parents=True)
    path.write_text('123456\n')
    assert frames[1].stamp_ns() == 123456
    with pytest.raises(InputError, match=r'000020_camera\.json: no such file'):
        read_sample_of(other)  # an annotated image has to have its own


def read_sample_of(frame):
    return Cityscapes3D(frame.root, frame.split)[1]


def test_a_wrong_root_or_split_names_the_remedy(tree, tmp_path):
    with pytest.raises(InputError, match='no folder leftImg8bit/'):
        Cityscapes3D(tmp_path, 'val')
    with pytest.raises(InputError, match="no images of split 'train'; splits there: val"):
        Cityscapes3D(tree, 'train')


def test_broken_frames_are_left_out_and_counted_on_request(write_tree, tmp_path):
    write_tree(tmp_path, frames=3)
    file_of(tmp_path, 'depth', 1).write_bytes(b'\x89PNG')
    dataset, broken = Cityscapes3D(tmp_path, 'val'), []
    with pytest.raises(InputError):
        list(dataset.samples())
    names = [frame.name for frame, _ in dataset.samples(broken=broken)]
    assert names == [dataset.names[0], dataset.names[2]]
    assert len(broken) == 1
    assert 'disparity.png: damaged image' in str(broken[0])


@pytest.mark.parametrize(
    ('what', 'pixels', 'complaint'),
    [
        ('leftImg8bit', np.zeros((128, 256), np.uint8), 'pixels: expected 8-bit RGB, got mode L'),
        ('semantic', np.zeros((64, 256), np.uint8), 'size: 256×64, its image is 256×128'),
        ('semantic', np.full((128, 256), 77, np.uint8), 'pixels: unknown label id 77'),
        ('depth', np.zeros((128, 256), np.uint8), 'pixels: expected 16-bit disparity'),
        ('depth', np.zeros((128, 255), np.uint16), 'size: 255×128, its image is 256×128'),
    ],
)
def test_wrong_pictures_are_named(fresh, what, pixels, complaint):
    path = file_of(fresh, what)
    Image.fromarray(pixels).save(path)
    with pytest.raises(InputError) as caught:
        Cityscapes3D(fresh, 'val')[0]
    assert str(caught.value).startswith(f'{path}: {complaint}')


@pytest.mark.parametrize(
    ('what', 'field', 'value', 'complaint'),
    [
        ('camera', 'intrinsic.fx', None, 'intrinsic.fx: is missing'),
        ('camera', 'intrinsic.fx', -1, 'intrinsic.fx: -1 is not positive'),
        ('camera', 'intrinsic.fx', 0.5, 'intrinsic: focal length below a pixel, is it normal'),
        ('camera', 'extrinsic.baseline', 0, 'extrinsic.baseline: 0 is not positive'),
        ('camera', 'extrinsic.yaw', 'north', "extrinsic.yaw: expected a finite number, got 'n"),
        ('camera', 'extrinsic', [], 'extrinsic.yaw: is missing'),
        ('detection3d', 'imgWidth', 2048, 'imgWidth: 2048, its image has 256'),
        ('detection3d', 'ignore', None, 'ignore: is missing'),
        ('detection3d', 'ignore.0.2d', [1, 2], 'ignore[0].2d: expected 4 finite numbers'),
        ('detection3d', 'objects', {}, 'objects: expected a list, got {}'),
        ('detection3d', 'objects.3.label', 'kar', "objects[3].label: unknown label 'kar'"),
        ('detection3d', 'objects.1.score', None, 'objects[1].score: is missing'),
        ('detection3d', 'objects.0.2d.amodal', None, 'objects[0].2d.amodal: is missing'),
        ('detection3d', 'objects.0.3d.center', [1, 2, float('inf')], 'objects[0].3d.center: exp'),
        ('detection3d', 'objects.0.3d.dimensions', [1, 0, 1], 'objects[0].3d.dimensions: [1.0,'),
        ('detection3d', 'objects.0.3d.rotation', [1, 1, 0, 0], 'objects[0].3d.rotation: not a un'),
        ('detection3d', 'sensor', None, 'sensor: is missing'),
        ('detection3d', 'sensor.sensor_T_ISO_8855.0', [2, 0, 0, 0], 'sensor.sensor_T_ISO_8855: t'),
    ],
)
def test_wrong_fields_are_named(fresh, what, field, value, complaint):
    path = file_of(fresh, what)
    document = json.loads(path.read_text())
    *parents, leaf = (int(key) if key.isdigit() else key for key in field.split('.'))
    node = document
    for key in parents:
        node = node[key]
    if value is None:
        del node[leaf]
    else:
        node[leaf] = value
    path.write_text(json.dumps(document))
    with pytest.raises(InputError) as caught:
        Cityscapes3D(fresh, 'val')[0]
    assert str(caught.value).startswith(f'{path}: {complaint}')
    assert '\n' not in str(caught.value)


@settings(max_examples=60, deadline=None)
@given(what=st.sampled_from(FILES), share=st.floats(0, 1, exclude_max=True))
def test_a_half_written_file_is_an_error_that_names_it(tree, what, share):
    path = file_of(tree, what)
    whole, intact = path.read_bytes(), Cityscapes3D(tree, 'val')[0]
    path.write_bytes(whole[: int(share * len(whole))])
    try:
        sample, complaint = read_or_complain(tree)
    finally:
        path.write_bytes(whole)
    if sample is None:
        assert complaint.startswith(f'{path}: ')
        assert '\n' not in complaint
    else:  # only checksums were cut off
        assert share > 0.9
        for name in ('image', 'semantic', 'depth'):
            actual, expected = getattr(sample, name), getattr(intact, name)
            assert np.array_equal(actual, expected, equal_nan=name == 'depth')


def read_or_complain(tree):
    try:
        return Cityscapes3D(tree, 'val')[0], ''
    except InputError as error:
        return None, str(error)


def paths_into(document, prefix=()):
    yield prefix
    items = document.items() if isinstance(document, dict) else ()
    items = enumerate(document) if isinstance(document, list) else items
    for key, value in items:
        yield from paths_into(value, (*prefix, key))


@settings(max_examples=200, deadline=None)
@given(
    what=st.sampled_from(('camera', 'detection3d')),
    seed=st.integers(0, 10**6),
    value=st.sampled_from(
        [None, True, 'x', [], {}, [[]], -1, 0, 1e400, float('nan'), 10**400, [0, 0, 0, 0], 3]
    ),
)
def test_no_json_value_whatsoever_raises_anything_else(tree, what, seed, value):
    path = file_of(tree, what)
    whole = path.read_text()
    document = copy.deepcopy(json.loads(whole))
    places = list(paths_into(document))[1:]
    *parents, leaf = places[seed % len(places)]
    node = document
    for key in parents:
        node = node[key]
    node[leaf] = value
    path.write_text(json.dumps(document))
    try:
        sample, complaint = read_or_complain(tree)
    finally:
        path.write_text(whole)
    if sample is None:
        assert complaint.startswith(f'{path}: ')
        assert '\n' not in complaint
    else:
        for tensor in (sample.detection3d.center_cam, sample.detection3d.rotation_cam):
            assert torch.isfinite(tensor).all()


@needs_real
def test_real_frames_are_read_each_with_its_own_calibration(tmp_path):
    folders = {
        'leftImg8bit.png': 'leftImg8bit', 'gtFine_labelIds.png': 'gtFine',
        'gtFine_instanceIds.png': 'gtFine', 'disparity.png': 'disparity', 'camera.json': 'camera',
    }  # fmt: skip
    for source in (REAL / 'cityscapes_frame').iterdir():
        suffix = next(suffix for suffix in folders if source.name.endswith(suffix))
        city = source.name.split('_')[0]
        link = tmp_path / folders[suffix] / 'train' / city / source.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(source.resolve())
    aachen, hamburg = Cityscapes3D(tmp_path, 'train')
    assert (aachen.camera.fx, aachen.camera.baseline_m) == (2262.52, 0.209313)
    assert (hamburg.camera.fx, hamburg.camera.baseline_m) == (2268.36, 0.222126)
    assert aachen.image.shape == hamburg.image.shape == (1024, 2048, 3)
    assert set(np.unique(aachen.semantic)) <= {*range(19), 255}
    assert hamburg.semantic is aachen.detection3d is None
    for sample in (aachen, hamburg):
        # Road just ahead: depth has to agree with a flat ground under a camera of this height.
        camera, row, column = sample.camera, 800, 1024
        height = np.linalg.inv(camera.camera_T_vehicle)[2, 3]
        slope = (row - camera.v0) / camera.fy
        ground_cam = camera.camera_T_vehicle[:3, 2]  # the upward normal of the road in C
        expected = height / (slope * ground_cam[2] - ground_cam[0])
        measured = np.nanmedian(sample.depth[row - 8 : row + 8, column - 80 : column + 80])
        assert measured == pytest.approx(expected, rel=0.05)


@needs_real
def test_the_genuine_annotation_is_read_and_written_back():
    path = REAL / 'cityscapes3d/unknownframe_a_gtBbox3d.json'
    camera = read_sensor(path)
    assert np.allclose(
        camera.camera_T_vehicle,
        read_camera(REAL / 'cityscapes_frame/aachen_000001_000019_camera.json').camera_T_vehicle,
    )
    objects, ignore_px = read_objects(path, camera)
    assert (objects.class_id == 0).sum() == 12
    assert (objects.class_id == 1).sum() == 1
    assert ignore_px.shape == (7, 4)
    original = json.loads(path.read_text())['objects']
    for a, b in zip(original, result_document(objects, camera)['objects'], strict=True):
        assert np.allclose(a['3d']['center'], b['3d']['center'], atol=1e-5)
        assert a['2d']['modal'] == b['2d']['modal']
        assert np.allclose(a['2d']['amodal'], b['2d']['amodal'], atol=4)


@needs_real
def test_the_real_sequence_shares_one_calibration():
    frames = find_frames(REAL / 'cityscapes_sequence', 'leftImg8bit_sequence')
    assert [int(frame.number) for frame in frames] == list(range(47548, 47563))
    assert {frame.camera(2048, 1024).fx for frame in frames} == {2268.36}
    steps = np.diff([frame.stamp_ns() for frame in frames])
    assert np.allclose(steps, 1e9 / 17, atol=1)
    assert frames[3].image().shape == (1024, 2048, 3)
