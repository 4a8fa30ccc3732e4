"""A drive through one synthetic street as a recording, for machines without driving data."""

from __future__ import annotations

import json
from collections.abc import Iterator

from tag_perception.data.recording import START_NS, StampedFrame
from tag_perception.data.street.annotation import record
from tag_perception.data.street.render import render_frame
from tag_perception.data.street.view import RATE_HZ


def street_clip(
    frames: int, size: tuple[int, int] = (512, 1024), seed: int = 0
) -> tuple[int, Iterator[StampedFrame]]:
    """Number of frames, and the frames by time, each rendered when its turn comes."""
    return frames, (_frame(seed, step, size) for step in range(frames))


def _frame(seed: int, step: int, size: tuple[int, int]) -> StampedFrame:
    rendering = render_frame(seed, frame=0, size=size, step=step)
    sample = rendering.sample
    return StampedFrame(
        stamp_ns=START_NS + round(step / RATE_HZ * 1e9),
        image=sample.image,
        camera=sample.camera,
        semantic=sample.semantic,
        depth=sample.depth,
        detection3d=sample.detection3d,
        ignore_px=sample.ignore_px,
        annotation=json.dumps(record(rendering.annotation, rendering.world)),
    )
