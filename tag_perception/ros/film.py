"""Pictures of a recording: the images of one bag with the results of another drawn beside them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from tag_perception.config import InputError
from tag_perception.overlay import OverlayStyle, panels
from tag_perception.ros.messages import to_camera, to_rgb, to_scene
from tag_perception.ros.process import Stop
from tag_perception.ros.storage import BagReader
from tag_perception.runtime.engine import UNTRAINED

IMAGE = 'sensor_msgs/msg/Image'
SHORTEST_S = 5.0
"""A film plays slower than the recording rather than be shorter than this."""


def draw_film(
    images: Path | str,
    results: Path | str,
    film: Path,
    still: Path,
    *,
    node: str = '/perception',
    style: OverlayStyle | None = None,
    progress: bool = False,
    stop: Stop | None = None,
) -> int:
    """Write an mp4 of all frames that have results, and the middle one as a picture.

    Each frame is image with 3D boxes | mask | depth. Returns the number of frames.
    """
    stop = Stop() if stop is None else stop
    with BagReader(images) as source, BagReader(results) as answers:
        topic = source.topic_of(IMAGE)
        stamps = [stamp_ns for _, stamp_ns, _ in answers.messages({f'{node}/vision_info'})]
        total, rate_hz = len(stamps), _rate_hz(stamps)
        video: cv2.VideoWriter | None = None
        count = 0
        try:
            frames = _drawn(source, topic, answers, node, style)
            for picture in tqdm(frames, 'draw', total, unit='frame', disable=not progress):
                if stop.is_set():
                    break
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


def _drawn(
    source: BagReader, topic: str, answers: BagReader, node: str, style: OverlayStyle | None
) -> Iterator[np.ndarray]:
    """The panels of every image that has results. Both bags are read once, side by side."""
    info_topic = f'{topic.rpartition("/")[0]}/camera_info'
    results = _by_stamp(answers, node)
    stamp_ns, outputs = next(results, (None, {}))
    info = None
    for name, _, data in source.messages({topic, info_topic}):
        message = source.decode(name, data)
        if name == info_topic:
            info = message
            continue
        while stamp_ns is not None and stamp_ns < _stamp_ns(message):
            stamp_ns, outputs = next(results, (None, {}))
        if stamp_ns != _stamp_ns(message):
            continue
        scene = to_scene(*(outputs.get(name) for name in ('semantic', 'depth', 'detections')))
        camera = None if info is None or scene.detection3d is None else to_camera(info)
        note = UNTRAINED if UNTRAINED in outputs['info'].method else ''
        yield panels(to_rgb(message), scene, camera, style, note=note)


def _by_stamp(answers: BagReader, node: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(stamp, messages of that frame) in the order of the recording; its log time is the stamp."""
    topics = {
        f'{node}/semantic/image': 'semantic',
        f'{node}/depth/image': 'depth',
        f'{node}/detections': 'detections',
        f'{node}/vision_info': 'info',
    }
    messages = answers.messages(topics.keys() & answers.topics.keys())
    for stamp_ns, group in groupby(messages, lambda entry: entry[1]):
        yield stamp_ns, {topics[topic]: answers.decode(topic, data) for topic, _, data in group}


def _stamp_ns(message: Any) -> int:
    stamp = message.header.stamp
    return stamp.sec * 10**9 + stamp.nanosec


def _rate_hz(stamps_ns: list[int]) -> float:
    """Frames per second of the film: those of the recording, unless that would be too short."""
    span_s = (stamps_ns[-1] - stamps_ns[0]) / 1e9 if stamps_ns else 0.0
    recorded_hz = (len(stamps_ns) - 1) / span_s if span_s > 0 else 1.0
    return max(min(recorded_hz, len(stamps_ns) / SHORTEST_S), 1.0)


def _open(path: Path, rate_hz: float, width: int, height: int) -> cv2.VideoWriter:
    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'mp4v'), rate_hz, (width, height))
    if not video.isOpened():
        raise InputError(f'{path}: cannot be written: OpenCV has no MPEG-4 encoder or no room')
    return video
