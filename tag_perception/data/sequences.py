"""A tree as one stream of stamped frames, what a bag is made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import groupby
from pathlib import Path

from tag_perception.config import InputError
from tag_perception.core.structures import Sample
from tag_perception.data.annotations import read_timestamp
from tag_perception.data.cityscapes3d import Frame, find_frames, read_sample

SEQUENCE_HZ = 17.0
"""Nominal frame rate of Cityscapes."""


@dataclass(frozen=True, kw_only=True)
class StampedSample(Sample):
    """A sample and when it was taken."""

    stamp_ns: int


def sequence_frames(root: Path | str, split: str | None = None) -> list[Frame]:
    """The frames of `leftImg8bit_sequence`, or of `leftImg8bit` in a tree without sequences."""
    root = Path(root)
    moving = (root / 'leftImg8bit_sequence').is_dir()
    frames = find_frames(root, 'leftImg8bit_sequence' if moving else 'leftImg8bit')
    chosen = [frame for frame in frames if split in (None, frame.split)]
    if not chosen:
        there = ', '.join(sorted({frame.split for frame in frames})) or 'none'
        raise InputError(f'{root}: no images of split {split!r}; splits there: {there}')
    return chosen


def stamped_samples(
    frames: Sequence[Frame], broken: list[InputError] | None = None
) -> Iterator[StampedSample]:
    """The frames in order with rising stamps.

    A broken frame raises InputError, or is left out and its fault appended to `broken`.
    """
    for frame, stamp_ns in zip(frames, stamps_ns(frames), strict=True):
        try:
            sample = read_sample(frame)
        except InputError as error:
            if broken is None:
                raise
            broken.append(error)
        else:
            values = {field.name: getattr(sample, field.name) for field in fields(sample)}
            yield StampedSample(**values, stamp_ns=stamp_ns)


def stamps_ns(frames: Sequence[Frame]) -> list[int]:
    """A rising stamp for every frame, from 0.

    Within a sequence they are those of its timestamp files, or nominal (17 Hz by frame number)
    unless every frame has one. Every sequence starts one nominal step after the one before.
    """
    step = round(1e9 / SEQUENCE_HZ)
    stamps: list[int] = []
    for _, group in groupby(frames, lambda frame: (frame.split, frame.city, frame.sequence)):
        local = _local_stamps_ns(list(group))
        start = stamps[-1] + step if stamps else 0
        stamps += [start + stamp - local[0] for stamp in local]
    return stamps


def _local_stamps_ns(frames: list[Frame]) -> list[int]:
    paths = [frame.path('timestamp') for frame in frames]
    if not all(path.exists() for path in paths):
        return [round(int(frame.number) / SEQUENCE_HZ * 1e9) for frame in frames]
    stamps = [read_timestamp(path) for path in paths]
    for path, before, stamp in zip(paths[1:], stamps, stamps[1:], strict=False):
        if stamp <= before:
            raise InputError(f'{path}: content: {stamp} ns is not after the frame before')
    return stamps
