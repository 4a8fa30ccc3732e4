"""From an image message to the output messages: what the node and process-bag have in common."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from tag_perception.core.structures import Camera, Scene
from tag_perception.overlay import color_depth, color_semantic, draw_scene
from tag_perception.ros import messages
from tag_perception.ros.markers import to_markers
from tag_perception.ros.messages import DetectionsMessage, ImageMessage
from tag_perception.ros.outputs import OUTPUTS
from tag_perception.ros.parameters import PerceptionConfig
from tag_perception.runtime.engine import EngineStatus


class Engine(Protocol):
    """What the pipeline needs of `runtime.engine.Engine`."""

    status: EngineStatus
    stages_ms: dict[str, float]

    def __call__(self, image: np.ndarray, camera: Camera | None) -> Scene:
        """Scene of one (H, W, 3) uint8 RGB image."""


class Sink(Protocol):
    """Where output messages go: publishers or a bag."""

    def wanted(self, topic: str) -> bool:
        """Whether to make the lazy output `topic`."""

    def publish(self, topic: str, message: Any) -> None:
        """Take a message; it may be changed as soon as this returns."""

    def close(self) -> None:
        """No more messages."""


@dataclass
class Result:
    """What became of one frame, apart from its messages."""

    withheld: str | None = None
    """Why there are no detections, or None."""
    stages_ms: dict[str, float] = field(default_factory=dict)


class Pipeline:
    """Converts, infers and converts back; keeps the output messages from frame to frame."""

    def __init__(self, engine: Engine, config: PerceptionConfig, sink: Sink) -> None:
        self.config = config
        """May be replaced between two frames."""
        self.status = engine.status
        self._engine = engine
        self._sink = sink
        self._detections = DetectionsMessage()
        self._images = {
            'semantic/image': ImageMessage('mono8', np.uint8, 1),
            'depth/image': ImageMessage('32FC1', np.float32, 1),
            'overlay': ImageMessage('rgb8', np.uint8, 3),
            'semantic/color': ImageMessage('rgb8', np.uint8, 3),
            'depth/color': ImageMessage('rgb8', np.uint8, 3),
        }
        self._semantic_labels = messages.semantic_labels()
        self._detection_labels = messages.detection_labels(config.engine.score_threshold)
        self._vision_info = messages.vision_info(engine.status, 'label_info')

    def __call__(self, image: Image, info: CameraInfo | None) -> Result:
        """Publish every output of one checked image, in the order of OUTPUTS. Raises Rejected."""
        result = Result()
        with _timed(result, 'convert'):
            pixels = messages.to_rgb(image)
            camera, result.withheld = usable_camera(info, image)
        scene = self._engine(pixels, camera)
        result.stages_ms.update(self._engine.stages_ms)
        with _timed(result, 'fill'):
            outputs = self._fill(image.header, scene, info if camera else None)
            outputs.update(self._fill_lazy(image.header, pixels, scene, camera))
        with _timed(result, 'publish'):
            for output in OUTPUTS:
                if output.topic in outputs:
                    self._sink.publish(output.topic, outputs[output.topic])
        return result

    def close(self) -> None:
        """Close the sink."""
        self._sink.close()

    def _fill(self, header: Header, scene: Scene, info: CameraInfo | None) -> dict[str, Any]:
        outputs: dict[str, Any] = {'vision_info': self._vision_info}
        if scene.detection3d is not None:
            outputs['detections'] = self._detections.fill(
                header, scene.detection3d, self.config.class_id_format
            )
            outputs['label_info'] = self._detection_labels
        for task, pixels in (('semantic', scene.semantic), ('depth', scene.depth)):
            if pixels is not None:
                topic = f'{task}/image'
                outputs[topic] = self._images[topic].fill(header, pixels.numpy())
                if info is not None:
                    outputs[f'{task}/camera_info'] = messages.with_header(info, header)
        if scene.semantic is not None:
            outputs['semantic/label_info'] = self._semantic_labels
        for topic in ('vision_info', 'label_info', 'semantic/label_info'):
            if topic in outputs:
                outputs[topic].header = header
        return outputs

    def _fill_lazy(
        self, header: Header, pixels: np.ndarray, scene: Scene, camera: Camera | None
    ) -> dict[str, Any]:
        style, wanted = self.config.overlay, self._sink.wanted
        outputs: dict[str, Any] = {}
        if wanted('markers') and scene.detection3d is not None:
            outputs['markers'] = to_markers(header, scene.detection3d)
        drawings: dict[str, Callable[[], np.ndarray]] = {
            'overlay': lambda: draw_scene(pixels, scene, camera, style)
        }
        if scene.semantic is not None:
            mask = scene.semantic.numpy()
            drawings['semantic/color'] = lambda: color_semantic(mask)
        if scene.depth is not None:
            depth_m = scene.depth.numpy()
            near_m, far_m = style.depth_near_m, style.depth_far_m
            drawings['depth/color'] = lambda: color_depth(depth_m, near_m, far_m)
        for topic, draw in drawings.items():
            if wanted(topic):
                outputs[topic] = self._images[topic].fill(header, draw())
        return outputs


def usable_camera(info: CameraInfo | None, image: Image) -> tuple[Camera | None, str | None]:
    """The calibration of `image` and None, or None and why it cannot place boxes."""
    if info is None:
        return None, 'no camera_info yet'
    camera = messages.to_camera(info)
    if (camera.width, camera.height) != (image.width, image.height):
        return None, (
            f'camera_info is for {camera.width}×{camera.height}, '
            f'the image is {image.width}×{image.height}'
        )
    fault = camera.fault()
    return (camera, None) if fault is None else (None, f'camera_info: {fault}')


@contextmanager
def _timed(result: Result, stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    result.stages_ms[stage] = (time.perf_counter() - start) * 1e3
