"""Every problem of a Cityscapes-3D tree, and what is in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import numpy as np

from tag_perception.config import InputError
from tag_perception.core.labels import DETECTION_CLASSES, SEMANTIC_CLASSES, UNLABELLED
from tag_perception.core.structures import Camera, Sample
from tag_perception.data.annotations import read_sensor, read_timestamp
from tag_perception.data.cityscapes3d import (
    FILES,
    SEQUENCE_FOLDERS,
    Frame,
    Kind,
    find_frames,
    read_sample,
)
from tag_perception.data.files import check_size, read_pixels

LABELS_OF_SAMPLE = ('semantic', 'depth', 'detection3d')


@dataclass
class SplitCount:
    """What the intact frames of one split hold."""

    frames: int = 0
    broken: int = 0
    labelled: Counter[str] = field(default_factory=Counter)
    """Frames that have labels, by task."""
    boxes: Counter[str] = field(default_factory=Counter)
    """3D boxes by class."""
    ignored: int = 0
    """Ignore regions."""
    pixels: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))
    """Pixels by train id."""

    def add(self, sample: Sample) -> None:
        """Count one sample."""
        self.labelled.update(x for x in LABELS_OF_SAMPLE if getattr(sample, x) is not None)
        if sample.detection3d is not None and sample.ignore_px is not None:
            self.boxes.update(DETECTION_CLASSES[i] for i in sample.detection3d.class_id.tolist())
            self.ignored += len(sample.ignore_px)
        if sample.semantic is not None:
            self.pixels += np.bincount(sample.semantic.ravel(), minlength=256)


@dataclass
class Check:
    """The outcome of `check_dataset`."""

    problems: list[str] = field(default_factory=list)
    splits: dict[str, SplitCount] = field(default_factory=dict)


def check_dataset(root: Path | str) -> Check:
    """Read every file of a tree. Raises InputError only where there is no tree at all."""
    root, check = Path(root), Check()
    kinds: list[Kind] = [kind for kind in get_args(Kind) if (root / kind).is_dir()]
    if not kinds:
        raise InputError(f'{root}: no folder {" or ".join(get_args(Kind))}; not a Cityscapes tree')
    frames = [frame for kind in kinds for frame in find_frames(root, kind)]
    for frame in frames:
        split = frame.split if frame.kind == 'leftImg8bit' else f'{frame.split} (sequence)'
        count = check.splits.setdefault(split, SplitCount())
        count.frames += 1
        try:
            count.add(_check_frame(frame, check.problems))
        except InputError as error:
            count.broken += 1
            check.problems.append(str(error))
    check.problems += _strays(root, frames, kinds)
    check.problems = list(dict.fromkeys(check.problems))  # the frames of a snippet share files
    return check


def format_counts(check: Check) -> str:
    """Two tables: frames and boxes by split, share of pixels by split."""
    lines = [_row('split', ['frames', 'broken', *LABELS_OF_SAMPLE, *DETECTION_CLASSES, 'ignore'])]
    for split, count in sorted(check.splits.items()):
        values = [count.frames, count.broken]
        values += [count.labelled[task] for task in LABELS_OF_SAMPLE]
        values += [count.boxes[name] for name in DETECTION_CLASSES] + [count.ignored]
        lines.append(_row(split, values))
    splits = [split for split, count in sorted(check.splits.items()) if count.pixels.any()]
    if splits:
        lines += ['', _row('% of pixels', splits)]
        for index, name in [*enumerate(SEMANTIC_CLASSES), (UNLABELLED, 'not scored')]:
            pixels = [check.splits[split].pixels for split in splits]
            lines.append(_row(name, [f'{100 * p[index] / p.sum():.2f}' for p in pixels]))
    return '\n'.join(lines)


def _check_frame(frame: Frame, problems: list[str]) -> Sample:
    """Read what training and evaluation read, then look at the rest of the frame's files."""
    sample = read_sample(frame)
    instances = frame.path('instances')
    if instances.exists():
        pixels = read_pixels(instances, '16-bit instance ids', ('I;16', 'I'))
        check_size(instances, pixels, sample.camera.width, sample.camera.height)
    if frame.path('timestamp').exists():
        read_timestamp(frame.path('timestamp'))
    boxes = frame.path('detection3d')
    if boxes.exists():
        problems += _disagreements(boxes, sample.camera)
    return sample


def _disagreements(path: Path, camera: Camera) -> Iterator[str]:
    """Where the sensor block of a box file is not the calibration of the camera file."""
    sensor = read_sensor(path)
    for name, tolerance in (('fx', 0.01), ('fy', 0.01), ('u0', 0.01), ('v0', 0.01)):
        ours, theirs = getattr(camera, name), getattr(sensor, name)
        if abs(ours - theirs) > tolerance:
            yield f'{path}: sensor.{name}: {theirs} px, its camera file says {ours}'
    assert camera.camera_T_vehicle is not None
    assert sensor.camera_T_vehicle is not None
    difference = np.abs(camera.camera_T_vehicle - sensor.camera_T_vehicle).max()
    if difference > 1e-3:
        yield f'{path}: sensor.sensor_T_ISO_8855: {difference:.3g} off the camera file'


def _strays(root: Path, frames: list[Frame], kinds: list[Kind]) -> Iterator[str]:
    """Files that belong to no image, and images without a proper name."""
    known = {frame.image_path for frame in frames} | {
        frame.path(what) for frame in frames for what in FILES
    }
    for kind in kinds:
        for path in sorted((root / kind).glob('*/*/*')):
            if path not in known:
                yield f'{path}: name: expected <city>_<sequence>_<frame>_leftImg8bit.png, once'
    folders = [(what, folder, suffix) for what, (folder, suffix) in FILES.items()]
    folders += [(what, folder, FILES[what][1]) for what, folder in SEQUENCE_FOLDERS.items()]
    for what, folder, suffix in folders:
        for path in sorted((root / folder).glob(f'*/*/*{suffix}')):
            if path not in known:
                yield f'{path}: {what} of no image'


def _row(name: str, values: list) -> str:
    return f'{name:<18}' + ''.join(
        f'{value!s:>{max(12, len(str(value)) + 2)}}' for value in values
    )
