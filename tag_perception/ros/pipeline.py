"""From an image message to the output messages: what the node and process-bag have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from nav_msgs.msg import OccupancyGrid
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header
from torch import Tensor

from tag_perception.config import InputError
from tag_perception.core.consistency import consistency
from tag_perception.core.labels import DETECTION_CLASSES
from tag_perception.core.occupancy import occupancy
from tag_perception.core.structures import Camera, Scene
from tag_perception.overlay import color_depth, color_semantic, draw_scene
from tag_perception.ros import compression, diagnostics, messages
from tag_perception.ros.calibration import Calibration, Seen
from tag_perception.ros.compression import CameraImage
from tag_perception.ros.frames import NoTransform, StaticTransforms, Transforms
from tag_perception.ros.jpeg import JpegDecoder, choose_decoder
from tag_perception.ros.markers import to_markers
from tag_perception.ros.messages import OPTICAL_T_CAMERA
from tag_perception.ros.outputs import LAST, OUTPUTS
from tag_perception.ros.parameters import PerceptionConfig
from tag_perception.ros.planning import GridMessage, PointsMessage
from tag_perception.ros.rectangles import to_detections_2d
from tag_perception.ros.stages import Stages
from tag_perception.ros.wire import ImageMessage, StampedMessage
from tag_perception.runtime.engine import EngineStatus
from tag_perception.runtime.runner import MapMemory


class Engine(Protocol):
    """What the pipeline needs of `runtime.engine.Engine`."""

    status: EngineStatus
    problem: str | None
    """Why it cannot work any more, or None."""
    rebuilds: int
    """How often an error of the device made it start anew."""

    @property
    def stages_ms(self) -> dict[str, float]:
        """Of the last call."""

    def batch(
        self,
        images: Sequence[np.ndarray],
        cameras: Sequence[Camera | None],
        memory: Sequence[MapMemory] | None = None,
    ) -> list[Scene]:
        """A Scene for each (H, W, 3) uint8 RGB image, whose maps may lie in its `memory`."""

    def prepare(self, together: int) -> None:
        """Do what the first batches of up to so many images would wait for."""


class Sink(Protocol):
    """Where output messages go: publishers or a bag."""

    def wanted(self, topic: str) -> bool:
        """Whether to make the lazy output `topic`."""

    def publish(self, topic: str, message: Any) -> None:
        """Take a message; it may be changed as soon as this returns."""

    def beside(self, work: Callable[[], None]) -> AbstractContextManager[None]:
        """Do `work`, which publishes, while the `with` block runs or before."""

    def close(self) -> None:
        """No more messages."""


@dataclass
class Result:
    """What became of one frame, apart from its messages."""

    withheld: str | None
    """Why there are no detections, or None."""
    stages_ms: dict[str, float]


@dataclass(frozen=True)
class Prepared:
    """One image on its way to the engine, and what is to be done with what that says."""

    header: Header
    seen: Seen
    stages: Stages
    memory: MapMemory | None
    """The pixels of the messages to come; None where the engine has no use for them, and the
    messages may still be those of the frame before."""


@dataclass(frozen=True)
class Frame:
    """One processed image and where its boxes go; what the outputs are filled from."""

    header: Header
    seen: Seen
    scene: Scene
    consistency: Tensor | None
    """(N,) agreement of the tasks on each box; None where nobody wants it or it is unknown."""
    placed: Header
    """Header of what is placed in space: that of the image, or in `target_frame`."""
    placed_T_camera: np.ndarray | None
    """(4, 4) from C to the frame of `placed`; None where the transform is missing."""


def fault(status: EngineStatus, config: PerceptionConfig) -> str | None:
    """What `config` asks for and the network cannot do, or None."""
    missing = {'semantic', 'depth', 'detection3d'} - set(status.network.tasks)
    if config.min_consistency > 0 and missing:
        return f'min_consistency needs a network with {", ".join(sorted(missing))}; set it to 0'
    return None


class Pipeline:
    """Converts, infers and converts back; keeps the output messages from frame to frame.

    With an engine on a GPU one thread may `finish` a frame while another has the next one
    prepared; only the former touches the messages.
    """

    def __init__(
        self,
        engine: Engine,
        config: PerceptionConfig,
        sink: Sink,
        transforms: Transforms | None = None,
        jpeg: JpegDecoder | None = None,
    ) -> None:
        """`jpeg` decodes compressed images; None: whatever is best beside the engine.

        Raises InputError where the network cannot do what `config` asks for.
        """
        self.config = config
        """May be replaced between two frames."""
        self._jpeg = choose_decoder(engine.status.device) if jpeg is None else jpeg
        self._engine = engine
        self._sink = sink
        self._transforms = StaticTransforms() if transforms is None else transforms
        self._calibration = Calibration()
        self._points, self._grid = PointsMessage(), GridMessage()
        self._images = {
            'semantic/image': ImageMessage('mono8', np.uint8, 1),
            'depth/image': ImageMessage('32FC1', np.float32, 1),
            'overlay': ImageMessage('rgb8', np.uint8, 3),
            'semantic/color': ImageMessage('rgb8', np.uint8, 3),
            'depth/color': ImageMessage('rgb8', np.uint8, 3),
        }
        labels = messages.detection_labels(config.engine.score_threshold)
        self._detection_labels = StampedMessage(labels)
        self._semantic_labels = StampedMessage(messages.semantic_labels())
        self._vision_info = StampedMessage(messages.vision_info(engine.status, 'label_info'))
        problem = fault(engine.status, config)
        if problem is not None:
            raise InputError(problem)

    def __call__(
        self,
        image: CameraImage,
        info: CameraInfo | None,
        stages: Stages | None = None,
    ) -> Result:
        """Publish every output of one checked image, in the order of OUTPUTS. Raises Rejected."""
        ready = self.prepare(image, info, Stages() if stages is None else stages)
        (scene,) = infer(self._engine, [ready])
        if isinstance(scene, Exception):
            raise scene
        ready.stages.end_engine(self._engine.stages_ms)
        return self.finish(ready, scene)

    def prepare(self, image: CameraImage, info: CameraInfo | None, stages: Stages) -> Prepared:
        """What the engine is to get for one checked image. Raises Rejected."""
        pixels = compression.to_rgb(image, self._jpeg)
        seen = self._calibration.apply(pixels, info, self.config.rectified_input)
        memory = None
        if not self._engine.status.on_gpu:
            memory = self._memory(image.header, *seen.pixels.shape[:2])
        stages.end('upload')
        return Prepared(image.header, seen, stages, memory)

    def finish(self, ready: Prepared, scene: Scene) -> Result:
        """Publish what the engine said about a prepared image."""
        header, stages, config = ready.header, ready.stages, self.config
        scene = ready.seen.finish(scene)
        # Depth takes as long as all others, in copies that leave Python to them.
        with self._sink.beside(partial(self._publish_others, ready, scene, config)):
            self._publish_depth(header, scene, config)
        stages.end('publish')
        self._sink.publish('latency', diagnostics.to_latency(header, stages.ms))
        self._sink.publish(LAST, self._vision_info.fill(header))
        return Result(ready.seen.withheld, stages.ms)

    def close(self) -> None:
        """Close the sink."""
        self._sink.close()

    def _memory(self, header: Header, height: int, width: int) -> MapMemory:
        """Where the messages of both maps keep their pixels."""
        semantic, depth = (
            self._images[topic].place(header, height, width)[..., 0]
            for topic in ('semantic/image', 'depth/image')
        )
        return MapMemory(semantic, depth)

    def _place(self, header: Header, seen: Seen, scene: Scene, config: PerceptionConfig) -> Frame:
        """Choose the boxes to report, and find the way to the frame to report them in."""
        scene, agreement = self._select(scene, seen.camera, config)
        if not config.target_frame:
            return Frame(header, seen, scene, agreement, header, OPTICAL_T_CAMERA)
        placed = Header(stamp=header.stamp, frame_id=config.target_frame)
        try:
            pose = self._transforms.lookup(config.target_frame, header.frame_id, header.stamp)
        except NoTransform:
            return Frame(header, seen, scene, agreement, placed, None)
        return Frame(header, seen, scene, agreement, placed, pose @ OPTICAL_T_CAMERA)

    def _select(
        self, scene: Scene, camera: Camera | None, config: PerceptionConfig
    ) -> tuple[Scene, Tensor | None]:
        """Only boxes above the thresholds, and their consistency if it is wanted."""
        boxes = scene.detection3d
        if boxes is None or camera is None:
            return scene, None
        limits = [getattr(config.score_thresholds, name) for name in DETECTION_CLASSES]
        high = boxes.score.numpy() >= np.array(limits, np.float32)[boxes.class_id.numpy()]
        if not high.all():
            boxes = boxes[torch.from_numpy(high)]
            scene = replace(scene, detection3d=boxes)
        if not config.min_consistency and not self._wanted('consistency', config):
            return scene, None
        agreement = consistency(scene, camera)
        if agreement is None:
            return scene, None
        kept = agreement >= config.min_consistency
        return replace(scene, detection3d=boxes[kept]), agreement[kept]

    def _publish_others(self, ready: Prepared, scene: Scene, config: PerceptionConfig) -> None:
        """All but the depth map, ~/latency and what comes last."""
        frame = self._place(ready.header, ready.seen, scene, config)
        outputs = {**self._fill(frame, config), **self._fill_lazy(frame, config)}
        ready.stages.end('fill')
        for output in OUTPUTS:
            if output.topic in outputs:
                self._sink.publish(output.topic, outputs[output.topic])

    def _publish_depth(self, header: Header, scene: Scene, config: PerceptionConfig) -> None:
        """The depth map, without a copy here where the engine has put it into the message."""
        if scene.depth is not None and config.outputs.allows('depth'):
            message = self._images['depth/image'].fill(header, scene.depth.numpy())
            self._sink.publish('depth/image', message)

    def _fill(self, frame: Frame, config: PerceptionConfig) -> dict[str, Any]:
        """The outputs that are always made, but for the depth map."""
        scene, header, allows = frame.scene, frame.header, config.outputs.allows
        outputs: dict[str, Any] = {}
        if scene.detection3d is not None and allows('detections'):
            boxes, ids = scene.detection3d, config.class_id_format
            if frame.placed_T_camera is not None:
                outputs['detections'] = messages.to_detections(
                    frame.placed, boxes, ids, frame.placed_T_camera
                )
            outputs['detections_2d'] = to_detections_2d(header, boxes, ids)
            outputs['label_info'] = self._detection_labels.fill(header)
        if frame.seen.describe is not None:
            info = frame.seen.describe(header)
            for task, pixels in (('semantic', scene.semantic), ('depth', scene.depth)):
                if pixels is not None and allows(task):
                    outputs[f'{task}/camera_info'] = info
        if scene.semantic is not None and allows('semantic'):
            mask = self._images['semantic/image'].fill(header, scene.semantic.numpy())
            labels = self._semantic_labels.fill(header)
            outputs |= {'semantic/image': mask, 'semantic/label_info': labels}
        return outputs

    def _fill_lazy(self, frame: Frame, config: PerceptionConfig) -> dict[str, Any]:
        """The outputs that somebody has asked for."""
        made = {
            topic: make()
            for topic, make in self._spatial(frame, config).items()
            if self._wanted(topic, config)
        }
        for topic, draw in _drawings(frame, config).items():
            if self._wanted(topic, config):
                made[topic] = self._images[topic].fill(frame.header, draw())
        return made

    def _spatial(self, frame: Frame, config: PerceptionConfig) -> dict[str, Callable[[], Any]]:
        """What makes each output that lies in space, as far as there is what it needs."""
        scene, camera, pose = frame.scene, frame.seen.camera, frame.placed_T_camera
        makers: dict[str, Callable[[], Any]] = {}
        boxes, ids = scene.detection3d, config.class_id_format
        if boxes is not None and pose is not None:
            makers['markers'] = lambda: to_markers(frame.placed, boxes, pose)
            if frame.consistency is not None:
                rated = replace(boxes, score=frame.consistency)
                makers['consistency'] = lambda: messages.to_detections(
                    frame.placed, rated, ids, pose
                )
        if camera is None or scene.depth is None:
            return makers
        depth_m, semantic = scene.depth.numpy(), scene.semantic
        mask = None if semantic is None else semantic.numpy()
        makers['points'] = lambda: self._points.fill(
            frame.header, frame.seen.pixels, depth_m, mask, camera, config.points.stride
        )
        if semantic is not None and pose is not None:
            makers['obstacles'] = lambda: self._obstacles(frame, camera, config)
        return makers

    def _obstacles(self, frame: Frame, camera: Camera, config: PerceptionConfig) -> OccupancyGrid:
        grid_T_camera = frame.placed_T_camera if config.target_frame else None
        cells = occupancy(frame.scene, camera, config.obstacles, grid_T_camera)
        assert cells is not None
        optical = grid_T_camera is None
        return self._grid.fill(frame.placed, cells, config.obstacles, optical)

    def _wanted(self, topic: str, config: PerceptionConfig) -> bool:
        return config.outputs.allows(topic) and self._sink.wanted(topic)


def infer(engine: Engine, frames: Sequence[Prepared]) -> list[Scene | Exception]:
    """What the engine says about frames that share a pass, or why it cannot say it.

    Where the pass fails, each frame gets one of its own: a bad one must not cost the others.
    """
    try:
        pixels, cameras = [f.seen.pixels for f in frames], [f.seen.camera for f in frames]
        memory = [f.memory for f in frames if f.memory is not None]  # of all or of none
        return [*engine.batch(pixels, cameras, memory or None)]
    except Exception as error:
        if len(frames) == 1:
            return [error]
    return [outcome for frame in frames for outcome in infer(engine, [frame])]


def _drawings(frame: Frame, config: PerceptionConfig) -> dict[str, Callable[[], np.ndarray]]:
    """What draws each picture, as far as the scene has what it shows."""
    style, scene, seen = config.overlay, frame.scene, frame.seen
    drawings: dict[str, Callable[[], np.ndarray]] = {
        'overlay': lambda: draw_scene(seen.pixels, scene, seen.camera, style)
    }
    if scene.semantic is not None:
        mask = scene.semantic.numpy()
        drawings['semantic/color'] = lambda: color_semantic(mask)
    if scene.depth is not None:
        depth_m = scene.depth.numpy()
        near_m, far_m = style.depth_near_m, style.depth_far_m
        drawings['depth/color'] = lambda: color_depth(depth_m, near_m, far_m)
    return drawings
