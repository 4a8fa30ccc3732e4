"""The lifecycle node `perception`: images in; detections, masks and depth out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.exceptions import InvalidParameterTypeException
from rclpy.lifecycle import LifecycleNode, LifecycleState
from rclpy.lifecycle import TransitionCallbackReturn as Return
from rclpy.parameter import Parameter

from tag_perception.config import InputError
from tag_perception.ros import diagnostics, parameters, process
from tag_perception.ros.frames import TfInput
from tag_perception.ros.inputs import Arrival, CameraInput, reason
from tag_perception.ros.mailbox import Worker
from tag_perception.ros.outputs import Publishers
from tag_perception.ros.pipeline import Engine, Pipeline
from tag_perception.runtime import engine as runtime


class PerceptionNode(LifecycleNode):
    """configure: load and warm up; activate: work; deactivate: rest; cleanup: free the weights."""

    def __init__(
        self, build_engine: Callable[[Any], Engine] = runtime.Engine, **options: Any
    ) -> None:
        """Raises InputError for a parameter that is unknown or out of range."""
        try:
            super().__init__('perception', **options)
        except InvalidParameterTypeException as error:  # of rclpy's own, such as use_sim_time
            raise InputError(' '.join(str(error).split())) from error
        self.config = parameters.declare(self)
        self.camera, self.transforms = CameraInput(self), TfInput(self)
        self.outputs = Publishers(self)
        self._build_engine = build_engine
        self._pipeline: Pipeline | None = None
        self._worker: Worker[Arrival] | None = None
        self._problem: str | None = None
        self._latencies = diagnostics.Latencies(self.config.latency_window_s)
        self._apply(self.config)
        diagnostics.start(self, self._reports)
        self.add_on_set_parameters_callback(self._change_parameters)

    def autostart(self) -> None:
        """Configure and activate, if the parameter `autostart` says so."""
        if self.config.autostart and self.trigger_configure() == Return.SUCCESS:
            self.trigger_activate()

    def on_configure(self, state: LifecycleState) -> Return:
        """Load and warm up the network; FAILURE leaves the node unconfigured."""
        return self._attempt('configure', self._load, self._unload)

    def on_activate(self, state: LifecycleState) -> Return:
        """Subscribe and start the worker."""
        super().on_activate(state)
        return self._attempt('activate', self._start, self._rest)

    def on_deactivate(self, state: LifecycleState) -> Return:
        """Unsubscribe and let the worker finish the frame in hand."""
        self._rest()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> Return:
        """Free the network and its memory."""
        self._unload()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> Return:
        """Rest and free, from whatever state."""
        self._rest()
        self._unload()
        return super().on_shutdown(state)

    def close(self) -> None:
        """Shut down from whatever state, and leave the graph."""
        if self._state() != 'finalized':
            self.trigger_shutdown()
        self.farewell()
        self.destroy_node()

    def farewell(self) -> None:
        """Log what became of the frames; one that is still in hand counts as superseded."""
        self.camera.mailbox.abandon()
        self.get_logger().info(f'frames: {self.camera.mailbox.counts}')

    def _attempt(self, name: str, step: Callable[[], None], undo: Callable[[], None]) -> Return:
        # rclpy swallows what a transition raises, so it is said here.
        try:
            step()
        except Exception as error:
            self._problem = f'{name} failed: {reason(error)}'
            self.get_logger().error(self._problem)
            undo()
            return Return.FAILURE
        self._problem = None
        return Return.SUCCESS

    def _load(self) -> None:
        engine = self._build_engine(self.config.engine)
        self._pipeline = Pipeline(engine, self.config, self.outputs, self.transforms)
        self.outputs.open()

    def _unload(self) -> None:
        self.outputs.close()
        self._pipeline = None

    def _start(self) -> None:
        self.transforms.open()
        self.camera.open(self.config.image_transport)
        self._worker = Worker(self.camera.mailbox, self._process, self.camera.reject)

    def _rest(self) -> None:
        self.camera.close()
        self.transforms.close()
        if self._worker is not None:
            self._worker.stop()
            self._worker = None

    def _process(self, arrival: Arrival) -> None:
        assert self._pipeline is not None
        result = self._pipeline(arrival.image, self.camera.info, arrival.stages_ms())
        self.camera.accept(result.withheld)
        self._latencies.add(result.stages_ms)

    def _change_parameters(self, changes: list[Parameter]) -> SetParametersResult:
        fault = None if self._pipeline is None else self._pipeline.fault
        config, result = parameters.change(self.config, changes, fault)
        self._apply(config)
        return result

    def _apply(self, config: parameters.PerceptionConfig) -> None:
        self.config = config
        self.camera.max_rate_hz = config.max_rate_hz
        self._latencies.window_s = config.latency_window_s
        if self._pipeline is not None:
            self._pipeline.config = config

    def _state(self) -> str:
        return self._state_machine.current_state[1]

    def _reports(self) -> list[diagnostics.Report]:
        status = self._pipeline.status if self._pipeline else None
        jpeg = self._pipeline.jpeg.name if self._pipeline else ''
        return [
            diagnostics.engine_report(self._state(), status, self._problem, jpeg),
            *diagnostics.input_reports(self.camera, self.transforms, self.config),
            *diagnostics.output_reports(self.camera, self.outputs, self._latencies),
        ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the executable `perception_node`."""
    return process.perception_node(arguments)
