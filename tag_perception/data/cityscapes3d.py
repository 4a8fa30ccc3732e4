"""The Cityscapes-3D tree on disk → Sample.

    ROOT/leftImg8bit/<split>/<city>/<city>_<sequence>_<frame>_leftImg8bit.png
    ROOT/{gtFine,disparity,camera,gtBbox3d,timestamp}/<split>/<city>/<same stem>_<suffix>

Images may be PNG or JPEG. Labels a frame does not have are None (the test split); labels that are
there but broken raise InputError with file and field. Calibration is read per image, in float64.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from tag_perception.config import InputError
from tag_perception.core.structures import Camera, Sample
from tag_perception.data.annotations import (
    read_camera,
    read_disparity,
    read_image,
    read_objects,
    read_semantic,
    read_timestamp,
)

Kind = Literal['leftImg8bit', 'leftImg8bit_sequence']

SEQUENCE_HZ = 17.0
"""Nominal frame rate of `leftImg8bit_sequence`."""
SNIPPET = range(-19, 11)
"""Offsets of the frames of a snippet from its annotated frame, which alone has a calibration."""

FILES = {
    'camera': ('camera', '_camera.json'),
    'semantic': ('gtFine', '_gtFine_labelIds.png'),
    'instances': ('gtFine', '_gtFine_instanceIds.png'),
    'depth': ('disparity', '_disparity.png'),
    'detection3d': ('gtBbox3d', '_gtBbox3d.json'),
    'timestamp': ('timestamp', '_timestamp.txt'),
}
"""Folder and suffix of what lies beside an image; labels by task."""

SEQUENCE_FOLDERS = {'timestamp': 'timestamp_sequence'}
"""What the frames of `leftImg8bit_sequence` have in a folder of their own."""

_STEM = re.compile(r'([^_]+)_(\d+)_(\d+)')
_IMAGE_SUFFIX = re.compile(r'_leftImg8bit\.(jpe?g|png)')


@dataclass(frozen=True)
class Frame:
    """One image of a tree and where its other files belong."""

    root: Path
    split: str
    image_path: Path
    city: str
    sequence: str
    number: str
    """Frame number with its leading zeros, as in the file name."""
    kind: Kind = 'leftImg8bit'

    @property
    def name(self) -> str:
        """The stem shared by all files, e.g. aachen_000000_000019."""
        return f'{self.city}_{self.sequence}_{self.number}'

    def path(self, what: str) -> Path:
        """Where the file `what` (a key of FILES) belongs, whether it exists or not."""
        folder, suffix = FILES[what]
        if self.kind == 'leftImg8bit_sequence':
            folder = SEQUENCE_FOLDERS.get(what, folder)
        return self.root / folder / self.split / self.city / f'{self.name}{suffix}'

    def image(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB."""
        return read_image(self.image_path)

    def camera(self, width: int, height: int) -> Camera:
        """Calibration of this image: its own file; in a sequence that of its annotated frame."""
        return read_camera(self._camera_path(), width, height)

    def stamp_ns(self) -> int:
        """Time since the start of its sequence: its timestamp file, else frame number / 17 Hz."""
        path = self.path('timestamp')
        if path.exists():
            return read_timestamp(path)
        return round(int(self.number) / SEQUENCE_HZ * 1e9)

    def _camera_path(self) -> Path:
        own = self.path('camera')
        if self.kind == 'leftImg8bit_sequence':
            for offset in sorted(SNIPPET, key=abs):
                number = f'{int(self.number) - offset:0{len(self.number)}d}'
                path = replace(self, number=number).path('camera')
                if path.exists():
                    return path
        return own


class Cityscapes3D:
    """The frames of one split, read to Samples on access."""

    def __init__(
        self, root: Path | str, split: str, need: Collection[str] = (), kind: Kind = 'leftImg8bit'
    ) -> None:
        """`need` names the tasks whose labels every frame has to have (None is a fault then)."""
        self.root, self.split, self.need = Path(root), split, tuple(need)
        frames = find_frames(self.root, kind)
        self.frames = [frame for frame in frames if frame.split == split]
        if not self.frames:
            there = ', '.join(sorted({frame.split for frame in frames})) or 'none'
            raise InputError(f'{self.root}: no images of split {split!r}; splits there: {there}')

    @property
    def names(self) -> list[str]:
        """Stems of all frames, in order."""
        return [frame.name for frame in self.frames]

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> Sample:
        return read_sample(self.frames[index], self.need)

    def samples(
        self, limit: int | None = None, broken: list[InputError] | None = None
    ) -> Iterator[tuple[Frame, Sample]]:
        """The first `limit` frames with their samples, in order.

        A broken frame raises InputError, or is left out and its fault appended to `broken`.
        """
        for frame in self.frames[:limit]:
            try:
                sample = read_sample(frame, self.need)
            except InputError as error:
                if broken is None:
                    raise
                broken.append(error)
            else:
                yield frame, sample


def find_frames(root: Path | str, kind: Kind = 'leftImg8bit') -> list[Frame]:
    """All images of a tree by split and name. Where an image is PNG and JPEG, the PNG counts."""
    root = Path(root)
    if not (root / kind).is_dir():
        raise InputError(f'{root}: no folder {kind}/; give the folder that holds it')
    frames: dict[tuple[str, str], Frame] = {}
    for path in sorted((root / kind).glob('*/*/*_leftImg8bit.*')):
        match = _STEM.fullmatch(_IMAGE_SUFFIX.sub('', path.name))
        if match:
            city, sequence, number = match.groups()
            frame = Frame(root, path.parts[-3], path, city, sequence, number, kind)
            frames[frame.split, frame.name] = frame
    return [frames[key] for key in sorted(frames)]


def read_sample(frame: Frame, need: Collection[str] = ()) -> Sample:
    """Image, calibration and all labels of one frame; labels without a file are None."""
    image = frame.image()
    height, width = image.shape[:2]
    camera = frame.camera(width, height)
    paths = {task: frame.path(task) for task in ('semantic', 'depth', 'detection3d')}
    found = {task for task, path in paths.items() if path.exists()}
    for task in need:
        if task not in found:
            raise InputError(f'{paths[task]}: no such file, but {task} labels are needed')
    objects, ignore_px = None, None
    if 'detection3d' in found:
        objects, ignore_px = read_objects(paths['detection3d'], camera)
    return Sample(
        name=frame.name,
        image=image,
        camera=camera,
        semantic=read_semantic(paths['semantic'], camera) if 'semantic' in found else None,
        depth=read_disparity(paths['depth'], camera) if 'depth' in found else None,
        detection3d=objects,
        ignore_px=ignore_px,
    )
