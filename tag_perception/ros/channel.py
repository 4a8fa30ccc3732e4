"""One camera's way through the node, and the pass through the network that cameras share."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from functools import partial

from rclpy.lifecycle import LifecycleNode

from tag_perception.core.structures import Scene
from tag_perception.ros import diagnostics
from tag_perception.ros.frames import Lookups, Transforms
from tag_perception.ros.inputs import Arrival, CameraInput
from tag_perception.ros.jpeg import JpegDecoder
from tag_perception.ros.mailbox import Outcome
from tag_perception.ros.outputs import Publishers
from tag_perception.ros.parameters import PerceptionConfig
from tag_perception.ros.pipeline import Engine, Pipeline, Prepared, infer


class Channel:
    """A camera's input, pipeline, outputs and figures. An only camera has no name."""

    def __init__(
        self,
        node: LifecycleNode,
        transforms: Transforms,
        name: str = '',
        changed: threading.Condition | None = None,
    ) -> None:
        """`changed`: shared by the mailboxes of all cameras."""
        self.name = name
        self.input = CameraInput(node, name, changed)
        self._outputs = Publishers(node, name)
        self._lookups = Lookups(transforms)
        self._latencies = diagnostics.Latencies(PerceptionConfig.latency_window_s)
        self._pipeline: Pipeline | None = None
        self._beside = False

    def load(self, engine: Engine, config: PerceptionConfig, jpeg: JpegDecoder) -> None:
        """Make what turns images into outputs. Raises InputError if `engine` cannot do it."""
        self._pipeline = Pipeline(engine, config, self._outputs, self._lookups, jpeg)
        self._beside = engine.status.on_gpu
        self._outputs.open()

    def unload(self) -> None:
        """Free that, and take the outputs off the graph."""
        self._outputs.close()
        self._pipeline = None

    def apply(self, config: PerceptionConfig) -> None:
        """Take over what may change at run time."""
        self.input.max_rate_hz = config.max_rate_hz
        self._latencies.window_s = config.latency_window_s
        if self._pipeline is not None:
            self._pipeline.config = config

    def prepare(self, arrival: Arrival) -> Prepared:
        """What the engine is to get for a frame. Raises Rejected."""
        assert self._pipeline is not None
        arrival.stages.end('wait')
        return self._pipeline.prepare(arrival.image, self.input.info, arrival.stages)

    def finish(self, ready: Prepared, scene: Scene) -> None:
        """Publish what the engine said about a frame, perhaps beside `prepare` of the next."""
        assert self._pipeline is not None
        if self._beside:
            ready.stages.end('handover')
        result = self._pipeline.finish(ready, scene)
        self.input.accept(result.withheld)
        self._latencies.add(result.stages_ms)

    def reports(self, config: PerceptionConfig) -> list[diagnostics.Report]:
        """What /diagnostics is to say about this camera."""
        found = [
            diagnostics.input_report(self.input, config.stale_after_s, config.rectified_input),
            diagnostics.transform_report(self._lookups, config.target_frame),
            diagnostics.frames_report(self.input.mailbox.counts, self._latencies),
            diagnostics.latency_report(self._latencies),
            diagnostics.outputs_report(self._outputs.problems()),
        ]
        return [report._replace(camera=self.name) for report in found]


def infer_frames(
    engine: Engine, channels: Sequence[Channel], arrivals: dict[int, Arrival]
) -> Iterator[Outcome]:
    """Ask the engine about the frames of some channels, known by their positions.

    Tells of each frame what publishes its results; one that fails does not touch the others.
    """
    ready: dict[int, Prepared] = {}
    for index, arrival in arrivals.items():
        try:
            ready[index] = channels[index].prepare(arrival)
        except Exception as error:
            yield index, error
    scenes = infer(engine, list(ready.values())) if ready else []
    for index, scene in zip(ready, scenes, strict=True):
        if isinstance(scene, Exception):
            yield index, scene
            continue
        # Told here, before the next pass makes the engine forget this one.
        ready[index].stages.end_engine(engine.stages_ms, shared=len(channels) > 1)
        yield index, partial(channels[index].finish, ready[index], scene)
