"""Pictures of a recording: the images of one bag with the results of another drawn beside them."""

from __future__ import annotations

from pathlib import Path

import cv2
from tqdm import tqdm

from tag_perception.config import InputError
from tag_perception.overlay import OverlayStyle, panels
from tag_perception.ros.process import Stop
from tag_perception.ros.results import Recording
from tag_perception.ros.storage import BagReader

SHORTEST_S = 5.0
"""A film plays slower than the recording rather than be shorter than this."""


def draw_film(
    recording: Recording,
    film: Path,
    still: Path,
    *,
    note: str = '',
    style: OverlayStyle | None = None,
    progress: bool = False,
    stop: Stop | None = None,
) -> int:
    """Write an mp4 of all frames that have results, and the middle one as a picture.

    Each frame is image with 3D boxes | mask | depth, with `note` in the caption. Returns the
    number of frames.
    """
    stop = Stop() if stop is None else stop
    total, rate_hz = _length(recording)
    video: cv2.VideoWriter | None = None
    count = 0
    try:
        for frame in tqdm(recording, 'draw', total, unit='frame', disable=not progress):
            if stop.is_set():
                break
            source = frame.source
            picture = panels(source.image, frame.scene, source.camera, style, note=note)
            bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
            if video is None:
                video = _open(film, rate_hz, bgr.shape[1], bgr.shape[0])
            video.write(bgr)
            if count <= total // 2:
                middle = bgr
            count += 1
    finally:
        if video is not None:
            video.release()
    if count and not cv2.imwrite(str(still), middle):
        raise InputError(f'{still}: cannot be written')
    return count


def _length(recording: Recording) -> tuple[int, float]:
    """Number of frames with results, and of frames per second of their film.

    It plays at the rate of the recording, unless that would be over too soon.
    """
    last = f'{recording.node}/vision_info'  # the last message of every frame
    with BagReader(recording.results) as results:
        stamps_ns = [stamp_ns for _, stamp_ns, _ in results.readable({last})]
    span_s = (stamps_ns[-1] - stamps_ns[0]) / 1e9 if stamps_ns else 0.0
    recorded_hz = (len(stamps_ns) - 1) / span_s if span_s > 0 else 1.0
    return len(stamps_ns), max(min(recorded_hz, len(stamps_ns) / SHORTEST_S), 1.0)


def _open(path: Path, rate_hz: float, width: int, height: int) -> cv2.VideoWriter:
    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'mp4v'), rate_hz, (width, height))
    if not video.isOpened():
        raise InputError(f'{path}: cannot be written: OpenCV has no MPEG-4 encoder or no room')
    return video
