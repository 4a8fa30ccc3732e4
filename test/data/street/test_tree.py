"""The written tree: official readers accept it, files agree with each other, runs continue."""

import errno
import json
import logging
import os
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tag_perception import cli
from tag_perception.config import InputError
from tag_perception.core.labels import DETECTION_CLASSES
from tag_perception.data import street
from tag_perception.data.check import check_dataset
from tag_perception.data.cityscapes3d import Cityscapes3D, find_frames
from tag_perception.data.street import StreetStream, parse_size, render, write_tree
from tag_perception.evaluate.evaluation import evaluate, scene_from_labels

SIZE = (96, 192)
SEED, FRAMES = 4, 5


@pytest.fixture(scope='module')
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp('streets')
    names = write_tree(root, SEED, FRAMES, SIZE, 'val', progress=False)
    assert names == [f'street4_{index:06d}_000019' for index in range(FRAMES)]
    return root


def files_of(root):
    return {p.relative_to(root): p.read_bytes() for p in sorted(root.rglob('*')) if p.is_file()}


def documents(root):
    return [json.loads(p.read_text()) for p in sorted(root.glob('gtBbox3d/val/*/*.json'))]


def test_every_file_has_its_place_and_suffix(root):
    expected = {
        Path(folder) / 'val' / 'street4' / f'street4_{index:06d}_000019_{suffix}'
        for index in range(FRAMES)
        for folder, suffix in (
            ('leftImg8bit', 'leftImg8bit.png'), ('gtFine', 'gtFine_labelIds.png'),
            ('gtFine', 'gtFine_instanceIds.png'), ('disparity', 'disparity.png'),
            ('camera', 'camera.json'), ('vehicle', 'vehicle.json'), ('timestamp', 'timestamp.txt'),
            ('gtBbox3d', 'gtBbox3d.json'),
        )
    }  # fmt: skip
    assert set(files_of(root)) == expected
    assert check_dataset(root).problems == []


def test_reading_gives_back_the_rendered_samples(root):
    for index, read in enumerate(Cityscapes3D(root, 'val', ('semantic', 'depth', 'detection3d'))):
        made = render(SEED, index, SIZE, 'val')
        assert read.name == made.name
        assert np.array_equal(read.image, made.image)
        assert np.array_equal(read.semantic, made.semantic)
        assert read.camera.fx == made.camera.fx
        np.testing.assert_allclose(
            read.camera.camera_T_vehicle, made.camera.camera_T_vehicle, atol=1e-12
        )
        for field in ('class_id', 'center_cam', 'size_lwh_m', 'box_2d_px'):
            ours, theirs = getattr(made.detection3d, field), getattr(read.detection3d, field)
            torch.testing.assert_close(theirs, ours, atol=1e-4, rtol=1e-5)
        overlap = (read.detection3d.rotation_cam * made.detection3d.rotation_cam).sum(-1).abs()
        torch.testing.assert_close(overlap, torch.ones_like(overlap), atol=1e-5, rtol=0)
        np.testing.assert_allclose(read.ignore_px, made.ignore_px)


def test_disparity_is_the_depth_within_its_step(root):
    for index, read in enumerate(Cityscapes3D(root, 'val')):
        made, camera = render(SEED, index, SIZE, 'val'), read.camera
        known = np.isfinite(made.depth) & np.isfinite(read.depth)
        disparity = [
            camera.fx * camera.baseline_m / sample.depth[known] for sample in (made, read)
        ]
        assert np.abs(disparity[0] - disparity[1]).max() <= 0.5 / 256 + 1e-4
        assert not np.isfinite(read.depth[~np.isfinite(made.depth)]).any()
        lost = np.isfinite(made.depth) & ~np.isfinite(read.depth)
        assert (made.depth[lost] > 400).all() or not lost.any()


def test_official_loaders_read_boxes_and_labels_without_a_warning(root, caplog, tmp_path):
    logging.getLogger().addHandler(logging.NullHandler())  # or the import writes eval.log here
    from cityscapesscripts.evaluation.evalObjectDetection3d import Box3dEvaluator
    from cityscapesscripts.evaluation.objectDetectionHelpers import EvaluationParameters
    from cityscapesscripts.helpers.csHelpers import getCsFileInfo
    from cityscapesscripts.helpers.labels import id2label

    evaluator = Box3dEvaluator(EvaluationParameters(list(DETECTION_CLASSES)))
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter('error')
        evaluator.loadGT(str(root / 'gtBbox3d'))
    assert not caplog.records
    assert len(evaluator.gts) == FRAMES
    read = sum(len(gt['objects']) for gt in evaluator.gts.values())
    assert read == sum(len(document['objects']) for document in documents(root)) > 0
    for path in root.glob('gtFine/val/*/*_labelIds.png'):
        assert getCsFileInfo(str(path)).city == 'street4'
        labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        instances = cv2.imread(str(path).replace('label', 'instance'), cv2.IMREAD_UNCHANGED)
        assert instances.dtype == np.uint16
        single = instances >= 1000
        assert np.array_equal(np.where(single, instances // 1000, instances), labels)
        assert all(id2label[value].hasInstances for value in np.unique(labels[single]))


def test_official_projection_gives_the_stored_amodal_rectangles(root):
    from cityscapesscripts.helpers.annotation import CsBbox3d
    from cityscapesscripts.helpers.box3dImageTransform import Box3dImageTransform, Camera

    for document in documents(root):
        sensor = document['sensor']
        camera = Camera(
            fx=sensor['fx'], fy=sensor['fy'], u0=sensor['u0'], v0=sensor['v0'],
            sensor_T_ISO_8855=sensor['sensor_T_ISO_8855'],
            imgWidth=document['imgWidth'], imgHeight=document['imgHeight'],
        )  # fmt: skip
        for entry in document['objects']:
            box, transform = CsBbox3d(), Box3dImageTransform(camera)
            box.fromJsonText(entry)
            transform.initialize_box_from_annotation(box)
            x1, y1, x2, y2 = transform.get_amodal_box_2d()
            x, y, width, height = entry['2d']['amodal']
            np.testing.assert_allclose((x, y, x + width, y + height), (x1, y1, x2, y2), atol=0.15)


def test_perfect_predictions_score_one_however_small_the_images(tmp_path):
    size = (64, 128)
    write_tree(tmp_path / 'tree', SEED, 8, size, 'val', progress=False)
    dataset = Cityscapes3D(tmp_path / 'tree', 'val')
    scenes = {sample.image.tobytes(): scene_from_labels(sample) for sample in dataset}
    results = evaluate(lambda image, _: scenes[image.tobytes()], dataset, tmp_path / 'scores')
    assert results['miou'] == 1
    assert results['rmse_m'] == results['rmse_disp_px'] == 0
    for matching in ('amodal', 'modal'):
        assert results[f'map_{matching}'] == 1
        assert results[f'car_ds_{matching}'] == pytest.approx(1, abs=1e-6)


def test_the_same_run_gives_the_same_bytes_whatever_its_length(root, tmp_path):
    write_tree(tmp_path, SEED, 2, SIZE, 'val', progress=False)
    whole = files_of(root)
    for path, content in files_of(tmp_path).items():
        assert content == whole[path], path


def test_an_interrupted_run_continues(root, tmp_path, monkeypatch):
    replace, count = os.replace, [0]

    def killed(source, target):
        count[0] += 1
        if count[0] == 13:  # in the middle of the second frame
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, 'replace', killed)
    with pytest.raises(KeyboardInterrupt):
        write_tree(tmp_path, SEED, 3, SIZE, 'val', progress=False)
    whole, finished = files_of(root), files_of(tmp_path)
    assert len(finished) == 12
    assert all(content == whole[path] for path, content in finished.items())
    monkeypatch.setattr(os, 'replace', replace)
    kept = tmp_path / 'leftImg8bit' / 'val' / 'street4' / 'street4_000000_000019_leftImg8bit.png'
    before = kept.stat().st_mtime_ns
    write_tree(tmp_path, SEED, 3, SIZE, 'val', progress=False)
    assert kept.stat().st_mtime_ns == before
    result = files_of(tmp_path)
    assert len(result) == 3 * 8
    assert all(content == whole[path] for path, content in result.items())


def test_a_full_disk_is_one_clear_error_and_leaves_no_half_file(tmp_path, monkeypatch):
    write = Path.write_bytes

    def full(path, content):
        if 'disparity' in path.name:
            write(path, content[: len(content) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, content)

    monkeypatch.setattr(Path, 'write_bytes', full)
    with pytest.raises(InputError, match=r'disparity\.png: cannot be written \(No space left'):
        write_tree(tmp_path, SEED, 1, SIZE, progress=False)
    assert not [path for path in files_of(tmp_path) if 'disparity' in path.name]


def test_a_file_where_a_folder_should_be_is_one_clear_error(tmp_path, capsys):
    (tmp_path / 'leftImg8bit').write_text('in the way')
    assert cli.main(['street', str(tmp_path), '--frames', '1', '--size', '64x128']) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert 'leftImg8bit' in message
    assert 'give another folder' in message


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        (['--size', '64'], 'HEIGHTxWIDTH'),
        (['--size', '8x16'], 'too small'),
        (['--seed', '-1', '--size', '64x128'], 'negative'),
        (['--frames', '0'], 'at least 1'),
        (['--device', 'cuda:99', '--size', '64x128'], "device 'cuda:99' cannot be used"),
    ],
)
def test_wrong_arguments_end_with_one_line(arguments, said, tmp_path, capsys):
    assert cli.main(['street', str(tmp_path), *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert not any(tmp_path.iterdir())


def test_frames_of_another_size_are_not_mixed_in(root):
    with pytest.raises(InputError, match='is 96x192, not 128x256'):
        write_tree(root, SEED, 1, (128, 256), 'val', progress=False)


def test_a_sequence_has_thirty_frames_around_the_annotated_one(tmp_path):
    command = ['street', str(tmp_path), '--seed', '4', '--frames', '1', '--size', '64x128']
    assert cli.main([*command, '--split', 'val', '--sequence']) == 0
    frames = find_frames(tmp_path, 'leftImg8bit_sequence')
    assert [int(frame.number) for frame in frames] == list(range(30))
    (annotated,) = find_frames(tmp_path)
    assert annotated.number == '000019'
    assert annotated.image_path.read_bytes() == frames[19].image_path.read_bytes()
    pictures = np.stack([frame.image().astype(int) for frame in frames])
    assert check_dataset(tmp_path).problems == []
    stamps = [
        int(path.read_text()) for path in sorted(tmp_path.glob('timestamp_sequence/*/*/*.txt'))
    ]
    assert stamps[0] == 0
    assert np.diff(stamps) == pytest.approx(1e9 / 17, abs=1)
    vehicles = sorted(tmp_path.glob('vehicle_sequence/*/*/*.json'))
    assert len(vehicles) == 30
    assert len({json.loads(path.read_text())['speed'] for path in vehicles}) == 1
    near, far = np.abs(np.diff(pictures, axis=0)).mean(), np.abs(pictures[29] - pictures[0]).mean()
    assert near < far


def test_a_gpu_is_shared_by_a_few_processes_unless_told_otherwise(tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(os, 'cpu_count', lambda: 128)
    monkeypatch.setattr(street, 'write_tree', lambda **options: given.append(options) or ['x'])
    for options in ([], ['--device', 'cuda'], ['--device', 'cuda', '--workers', '3']):
        assert cli.main(['street', str(tmp_path), *options]) == 0
    assert [options['workers'] for options in given] == [128, 8, 3]


def test_workers_write_the_same_tree(root, tmp_path):
    write_tree(tmp_path, SEED, 3, SIZE, 'val', workers=2, progress=False)
    whole = files_of(root)
    result = files_of(tmp_path)
    assert len(result) == 3 * 8
    assert all(content == whole[path] for path, content in result.items())


def test_a_stream_is_random_access_and_safe_in_loader_workers():
    stream = StreetStream(7, (64, 128), 'val', length=4)
    assert len(stream) == 4
    order = [stream[i].image for i in (3, 0)]
    assert np.array_equal(order[1], render(7, 0, (64, 128), 'val').image)
    loader = torch.utils.data.DataLoader(stream, None, num_workers=2)
    loaded = [sample.image for sample in loader]
    assert len(loaded) == 4
    assert np.array_equal(loaded[3], order[0])
    with pytest.raises(IndexError):
        stream[4]
    endless = StreetStream(7, (64, 128))
    assert endless[10**6].name == 'street7_1000000_000019'
    with pytest.raises(TypeError, match='endless'):
        len(endless)


def test_sizes_are_height_before_width():
    assert parse_size('512x1024') == (512, 1024)
    for wrong in ('512', '512x', 'x1024', '-5x10', '5.0x10', '1x2x3'):
        with pytest.raises(InputError, match='HEIGHTxWIDTH'):
            parse_size(wrong)
