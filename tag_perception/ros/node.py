"""The lifecycle node `perception`: images in; detections, masks and depth out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.exceptions import InvalidParameterTypeException
from rclpy.lifecycle import LifecycleNode, LifecycleState
from rclpy.lifecycle import TransitionCallbackReturn as Return
from rclpy.parameter import Parameter

from tag_perception.config import InputError
from tag_perception.ros import diagnostics, parameters, process, transport
from tag_perception.ros.channel import Channel, infer_frames
from tag_perception.ros.frames import TfInput
from tag_perception.ros.inputs import Arrival, reason
from tag_perception.ros.jpeg import JpegDecoder, choose_decoder
from tag_perception.ros.mailbox import Worker
from tag_perception.ros.pipeline import Engine, fault
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
        self.transforms = TfInput(self)
        self.channels: list[Channel] = []
        """One per camera, in the order of the parameter `cameras`."""
        self._build_engine = build_engine
        self._engine: Engine | None = None
        self._jpeg: JpegDecoder | None = None
        self._worker: Worker[Arrival] | None = None
        self._problem: str | None = None
        self._apply(self.config)
        diagnostics.start(self, self._reports)
        self.add_on_set_parameters_callback(self._change_parameters)

    def set_parameters_atomically(
        self, parameter_list: list[Parameter[Any]]
    ) -> SetParametersResult:
        """What the parameter services call: unknown names and wrong types are refused by name.

        rclpy's own refusals leave the name out, and Humble has no callback before them.
        """
        for parameter in parameter_list:
            problem = parameters.refusal(self, parameter)
            if problem is not None:
                return SetParametersResult(successful=False, reason=problem)
        return super().set_parameters_atomically(parameter_list)

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
        """Unsubscribe and let the worker finish the frames in hand."""
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
        """Log what became of the frames; those still in hand count as superseded."""
        for channel in self.channels:
            mailbox, of = channel.input.mailbox, f' of {channel.name}' if channel.name else ''
            mailbox.abandon()
            self.get_logger().info(f'frames{of}: {mailbox.counts}')

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
        self._engine = self._build_engine(self.config.engine)
        self._engine.prepare(len(self.channels))
        height, width = self._engine.status.network.input_size  # as good a guess as any
        transport.populate(height * width * len(self.channels))
        self._jpeg = choose_decoder(self._engine.status.device)
        for channel in self.channels:
            channel.load(self._engine, self.config, self._jpeg)

    def _unload(self) -> None:
        for channel in self.channels:
            channel.unload()
        self._engine = self._jpeg = None

    def _start(self) -> None:
        assert self._engine is not None
        self.transforms.open()
        for channel in self.channels:
            channel.input.open(self.config.image_transport)
        self._worker = Worker(
            [channel.input.mailbox for channel in self.channels],
            partial(infer_frames, self._engine, self.channels),
            lambda index, error: self.channels[index].input.reject(error),
            self._engine.status.largest_batch,
            beside=self._engine.status.on_gpu,  # on the CPU the network wants the same cores
        )

    def _rest(self) -> None:
        for channel in self.channels:
            channel.input.close()
        if self._worker is not None:
            self._worker.stop()
            self._worker = None
        self.transforms.close()  # not before: the frames in hand ask it

    def _change_parameters(self, changes: list[Parameter]) -> SetParametersResult:
        judge = None if self._engine is None else partial(fault, self._engine.status)
        config, result = parameters.change(self.config, changes, judge)
        self._apply(config)
        return result

    def _apply(self, config: parameters.PerceptionConfig) -> None:
        self.config = config
        names = config.cameras or ('',)
        if names != tuple(channel.name for channel in self.channels):
            changed = threading.Condition()
            self.channels = [Channel(self, self.transforms, name, changed) for name in names]
        for channel in self.channels:
            channel.apply(config)

    def _state(self) -> str:
        return self._state_machine.current_state[1]

    def _reports(self) -> list[diagnostics.Report]:
        engine, problem, rebuilds = self._engine, self._problem, 0
        if engine is not None:
            problem, rebuilds = problem or engine.problem, engine.rebuilds
        jpeg = '' if self._jpeg is None else self._jpeg.name
        return [
            diagnostics.engine_report(
                self._state(), engine.status if engine else None, problem, jpeg, rebuilds
            ),
            *(report for channel in self.channels for report in channel.reports(self.config)),
        ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the executable `perception_node`."""
    return process.perception_node(arguments)
