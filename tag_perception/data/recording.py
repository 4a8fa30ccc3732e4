"""Anything with images on disk as one recording: a Cityscapes(-3D) tree or a folder of images.

Calibration of a folder: the given JSON file, `<stem>_camera.json` beside an image, or
`camera.json`, all in the format of the dataset. Without one an image has no camera.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from tag_perception.config import InputError
from tag_perception.core.structures import Camera, Objects3D
from tag_perception.data.annotations import read_camera, read_image
from tag_perception.data.cityscapes3d import SEQUENCE_HZ, Frame, Kind, find_frames, read_sample

START_NS = 10**18
"""Stamp of the first frame. Not 0, which to ROS means that there is no time yet."""
GAP_S = 2.0
"""Frames of one sequence farther apart than this are unrelated images."""
IMAGE_SUFFIXES = {'.png', '.jpg', '.jpeg'}


@dataclass(frozen=True)
class StampedFrame:
    """One image, when it was taken, and the calibration and labels it has."""

    stamp_ns: int
    image: np.ndarray
    """(H, W, 3) uint8 RGB."""
    camera: Camera | None = None
    semantic: np.ndarray | None = None
    """(H, W) uint8 train ids, 255 where not scored."""
    depth: np.ndarray | None = None
    """(H, W) float32 metres along the optical axis, NaN where not measured."""
    detection3d: Objects3D | None = None
    ignore_px: np.ndarray | None = None
    """(M, 4) float32 rectangles x1, y1, x2, y2 in which detections are not scored."""
    annotation: str | None = None
    """The gtBbox3d document (JSON)."""


def open_recording(
    source: Path | str,
    split: str | None = None,
    camera: Path | str | None = None,
    hz: float = SEQUENCE_HZ,
    limit: int | None = None,
) -> tuple[int, Iterator[StampedFrame]]:
    """Number of frames, and the frames by time, each read when its turn comes.

    `split` selects frames of a tree, `camera` is the calibration of a folder, `hz` the rate where
    nothing tells the time. Raises InputError where there is nothing to read.
    """
    source = Path(source)
    if not 0 < hz < float('inf'):
        raise InputError(f'{hz} is no frame rate')
    kinds: tuple[Kind, ...] = ('leftImg8bit_sequence', 'leftImg8bit')
    for kind in kinds:
        if (source / kind).is_dir():
            frames = _frames(source, kind, split)[:limit]
            return len(frames), _labelled(frames, hz)
    paths = _images(source)[:limit]
    return len(paths), _unlabelled(paths, None if camera is None else Path(camera), hz)


def _frames(root: Path, kind: Kind, split: str | None) -> list[Frame]:
    frames = find_frames(root, kind)
    chosen = [frame for frame in frames if split in (None, frame.split)]
    if not chosen:
        there = ', '.join(sorted({frame.split for frame in frames})) or 'none'
        raise InputError(f'{root}: no images of split {split!r}; splits there: {there}')
    return chosen


def _labelled(frames: list[Frame], hz: float) -> Iterator[StampedFrame]:
    for frame, stamp_ns in zip(frames, _stamps_ns(frames, hz), strict=True):
        sample = read_sample(frame)
        yield StampedFrame(
            stamp_ns,
            sample.image,
            sample.camera,
            sample.semantic,
            sample.depth,
            sample.detection3d,
            sample.ignore_px,
            None if sample.detection3d is None else frame.path('detection3d').read_text(),
        )


def _stamps_ns(frames: list[Frame], hz: float) -> Iterator[int]:
    """Rising stamps: steps within a sequence as they were, everything else one period apart."""
    stamp_ns = START_NS
    yield stamp_ns
    for before, after in pairwise(frames):
        same = (before.split, before.city, before.sequence) == (
            after.split,
            after.city,
            after.sequence,
        )
        step_ns = after.stamp_ns() - before.stamp_ns() if same else 0
        stamp_ns += step_ns if 0 < step_ns < GAP_S * 1e9 else round(1e9 / hz)
        yield stamp_ns


def _images(folder: Path) -> list[Path]:
    if folder.is_file():
        raise InputError(f'{folder} is a file: give a folder of images or a Cityscapes tree')
    if not folder.is_dir():
        raise InputError(f'{folder}: no such folder')
    images = sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
    if not images:
        raise InputError(f'{folder}: no images (png, jpg) and no leftImg8bit/')
    # Beside files of the dataset only the camera images are meant, not masks and disparities.
    return [p for p in images if p.stem.endswith('_leftImg8bit')] or images


def _unlabelled(paths: list[Path], camera: Path | None, hz: float) -> Iterator[StampedFrame]:
    for index, path in enumerate(paths):
        image = read_image(path)
        height, width = image.shape[:2]
        file = camera or _camera_file(path)
        calibration = None if file is None else read_camera(file, width, height)
        yield StampedFrame(START_NS + round(index / hz * 1e9), image, calibration)


def _camera_file(image: Path) -> Path | None:
    stem = re.sub('_leftImg8bit$', '', image.stem)
    candidates = (image.with_name(name) for name in (f'{stem}_camera.json', 'camera.json'))
    return next((path for path in candidates if path.exists()), None)
