"""Recorded results, frame by frame, joined with the images and labels they belong to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tag_perception.config import InputError
from tag_perception.core.structures import Camera, Scene
from tag_perception.ros import compression, messages
from tag_perception.ros.bag import ANNOTATION, GROUND_TRUTH, RIGHT_CAMERA, VEHICLE_FRAME
from tag_perception.ros.calibration import Calibration
from tag_perception.ros.frames import NoTransform, StaticTransforms
from tag_perception.ros.messages import OPTICAL_T_CAMERA
from tag_perception.ros.rectangles import to_rectangles
from tag_perception.ros.storage import BagReader, DamagedBag

PENDING = 30
"""Frames that may be incomplete at a time: a recorder writes topics as they come."""

IMAGES = ('sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage')
RESULTS = {
    'detections': 'detections',
    'detections_2d': 'detections_2d',
    'semantic': 'semantic/image',
    'depth': 'depth/image',
    'latency': 'latency',
}
"""Topics below the node, by a short name."""
LABELS = {
    'detections': f'{GROUND_TRUTH}/detections',
    'semantic': f'{GROUND_TRUTH}/semantic/image',
    'depth': f'{GROUND_TRUTH}/depth/image',
}


@dataclass(frozen=True)
class Source:
    """What the camera gave, and what is known to be true about it."""

    stamp_ns: int
    image: np.ndarray
    """(H, W, 3) uint8 RGB, rectified."""
    camera: Camera | None
    labels: Scene
    """Ground truth; None where there is none."""
    annotation: str | None
    """The gtBbox3d document (JSON)."""
    frame_id: str


@dataclass(frozen=True)
class Recorded:
    """One frame and what the node said of it."""

    source: Source
    scene: Scene
    latency_ms: dict[str, float]
    """By stage, with their sum `total`; empty where it was not recorded."""


class Recording:
    """A bag of results beside the bag they were made from (or in the same)."""

    def __init__(
        self, results: Path | str, source: Path | str | None = None, node: str = '/perception'
    ) -> None:
        """`node` published the results. Raises InputError where there are none."""
        self.results, self.source = Path(results), Path(source or results)
        self.node = node
        self.missing = 0
        """Frames of the source without results, once all are read."""
        self.score_threshold: float | None = None
        """Below it boxes were not published; None where that was not recorded."""
        self.damage: DamagedBag | None = None
        """Why a bag ended before its time, once all that can be read is read."""

    def __iter__(self) -> Iterator[Recorded]:
        """The frames that have results, by time, as far as the bags can be read.

        Raises InputError; for damage only if there is no frame before it.
        """
        with BagReader(self.results) as results, BagReader(self.source) as source:
            self._check(results)
            self._read_threshold(results)
            answers = self._answers(results)
            waiting: dict[int, dict[str, Any]] = {}
            self.missing = count = 0
            for frame in _sources(source, self.node):
                while frame.stamp_ns not in waiting and (answer := next(answers, None)):
                    waiting[answer[0]] = answer[1]
                    if answer[0] > frame.stamp_ns:
                        break
                found = waiting.pop(frame.stamp_ns, None)
                if found is None:
                    self.missing += 1
                else:
                    count += 1
                    yield _join(frame, found, self.results)
            self.damage = results.damage or source.damage
            if not count:
                self.check_whole()

    def check_whole(self) -> None:
        """Raise DamagedBag if a bag ended before its time."""
        if self.damage is not None:
            raise self.damage

    def _check(self, results: BagReader) -> None:
        topics = [f'{self.node}/{topic}' for topic in RESULTS.values()]
        if not set(topics) & set(results.topics):
            there = ', '.join(results.topics) or 'nothing'
            raise InputError(
                f'{self.results}: no results of {self.node} (name the node that published them); '
                f'in the bag: {there}'
            )

    def _read_threshold(self, results: BagReader) -> None:
        topic = f'{self.node}/label_info'
        if topic in results.topics:
            data = next((data for _, _, data in results.readable({topic})), None)
            if data is not None:
                self.score_threshold = float(results.decode(topic, data).threshold)

    def _answers(self, results: BagReader) -> Iterator[tuple[int, dict[str, Any]]]:
        """(stamp, messages by short name), complete as far as the bag has them."""
        names = {f'{self.node}/{topic}': name for name, topic in RESULTS.items()}
        pending: dict[int, dict[str, Any]] = {}
        for topic, _, data in results.readable(names):
            message = results.decode(topic, data)
            pending.setdefault(_stamp_ns(message), {})[names[topic]] = message
            if len(pending) > PENDING:
                stamp_ns = min(pending)
                yield stamp_ns, pending.pop(stamp_ns)
        for stamp_ns in sorted(pending):
            yield stamp_ns, pending[stamp_ns]


def _sources(reader: BagReader, node: str) -> Iterator[Source]:
    """The frames of the bag that was played. Labels lie before or behind their image."""
    image_topic = _image_topic(reader, node)
    info_topic = f'{image_topic.removesuffix("/compressed").rpartition("/")[0]}/camera_info'
    names = {image_topic: 'image', ANNOTATION: 'annotation', **{t: n for n, t in LABELS.items()}}
    rare = {info_topic: 'info', RIGHT_CAMERA: 'right', '/tf_static': 'tf'}
    transforms, calibration = StaticTransforms(), Calibration()
    current: dict[str, Any] = {}
    pending: dict[str, Any] = {}
    stamp_ns = None
    for topic, log_ns, data in reader.readable({*names, *rare} & set(reader.topics)):
        if log_ns != stamp_ns and 'image' in pending:
            yield _source(pending, current, transforms, calibration)
            pending = {}
        stamp_ns = log_ns
        message = reader.decode(topic, data)
        if topic == '/tf_static':
            transforms.add(message)
        elif topic in rare:
            current[rare[topic]] = message
        else:
            pending[names[topic]] = message
    if 'image' in pending:
        yield _source(pending, current, transforms, calibration)


def _image_topic(reader: BagReader, node: str) -> str:
    candidates = [
        topic
        for topic, kind in reader.topics.items()
        if kind in IMAGES and not topic.startswith((f'{node}/', f'{GROUND_TRUTH}/'))
    ]
    if len(candidates) != 1:
        there = ', '.join(candidates) or 'none'
        raise InputError(f'{reader.path}: one topic of camera images is needed, there is {there}')
    return candidates[0]


def _source(
    found: dict[str, Any],
    current: dict[str, Any],
    transforms: StaticTransforms,
    calibration: Calibration,
) -> Source:
    image = found['image']
    compression.check_image(image)
    seen = calibration.apply(compression.to_rgb(image), current.get('info'), False)
    camera = seen.camera
    if camera is not None:
        baseline_m, frame = None, image.header.frame_id
        if 'right' in current:
            baseline_m = -current['right'].p[3] / current['right'].p[0]
        pose = _camera_T_vehicle(transforms, frame, image.header.stamp)
        camera = replace(camera, baseline_m=baseline_m, camera_T_vehicle=pose)
    labels = messages.to_scene(found.get('semantic'), found.get('depth'), found.get('detections'))
    annotation = found['annotation'].data if 'annotation' in found else None
    frame_id = image.header.frame_id
    return Source(_stamp_ns(image), seen.pixels, camera, labels, annotation, frame_id)


def _camera_T_vehicle(transforms: StaticTransforms, frame: str, stamp: Any) -> np.ndarray | None:
    try:
        optical_T_vehicle = transforms.lookup(frame, VEHICLE_FRAME, stamp)
    except NoTransform:
        return None
    return OPTICAL_T_CAMERA.T @ optical_T_vehicle


def _join(source: Source, found: dict[str, Any], path: Path) -> Recorded:
    scene = messages.to_scene(found.get('semantic'), found.get('depth'), found.get('detections'))
    boxes = scene.detection3d
    if boxes is not None and found['detections'].header.frame_id != source.frame_id:
        raise InputError(
            f'{path}: detections are in {found["detections"].header.frame_id}, the images in '
            f'{source.frame_id}: record with target_frame empty'
        )
    if boxes is not None and 'detections_2d' in found:
        rectangles = to_rectangles(found['detections_2d'])
        if len(rectangles) != len(boxes):
            raise InputError(
                f'{path}: frame {source.stamp_ns}: detections and detections_2d differ'
            )
        scene = replace(scene, detection3d=replace(boxes, box_2d_px=rectangles))
    latency_ms = {}
    if 'latency' in found:
        pairs = found['latency'].status[0].values
        latency_ms = {pair.key.removesuffix('_ms'): float(pair.value) for pair in pairs}
    return Recorded(source, scene, latency_ms)


def _stamp_ns(message: Any) -> int:
    stamp = message.header.stamp
    return stamp.sec * 10**9 + stamp.nanosec
