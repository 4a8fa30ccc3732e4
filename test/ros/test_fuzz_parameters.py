"""Hostile parameters and transitions: refused with a reason, and the node goes on serving."""

from __future__ import annotations

import dataclasses
import threading
import time

import pytest
import rclpy
from hypothesis import given
from hypothesis import strategies as st
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.msg import ParameterValue
from rcl_interfaces.srv import SetParameters, SetParametersAtomically
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter

from tag_perception import config
from tag_perception.config import InputError
from tag_perception.ros import parameters, session
from tag_perception.ros.node import PerceptionNode
from tag_perception.ros.parameters import PerceptionConfig
from tag_perception.ros.process import Stop

from ..fuzz.cases import assert_one_line, cases
from ..fuzz.mutations import JSON_VALUES, NUMBERS
from .fakes import TIMEOUT_S, FakeEngine

DEFAULTS = config.flatten(config.to_dict(PerceptionConfig()))
NAMES = st.sampled_from([*DEFAULTS, 'use_sim_time', 'qos_overrides./image.subscription.depth'])
TEXT = st.text(st.characters(min_codepoint=1, exclude_categories=['Cs']), max_size=20)


class Peer:
    """Service calls to a node that spins in another thread, as in its own process."""

    def __init__(self) -> None:
        self.stop = Stop()
        self.node = PerceptionNode(FakeEngine, namespace='fuzzed')
        self.node.autostart()
        self.thread = threading.Thread(target=session.spin, args=(self.node, self.stop))
        self.thread.start()
        self.client = rclpy.create_node('peer', namespace='fuzzed')
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.client)
        self.services = {
            kind: self.client.create_client(kind, f'/fuzzed/perception/{name}')
            for kind, name in (
                (SetParameters, 'set_parameters'),
                (SetParametersAtomically, 'set_parameters_atomically'),
                (ChangeState, 'change_state'),
                (GetState, 'get_state'),
            )
        }
        for service in self.services.values():
            assert service.wait_for_service(TIMEOUT_S)

    def call(self, request):
        """The response, or None if the node could not answer but answers what is asked next."""
        future = self.services[self._kind(request)].call_async(request)
        still = self.services[GetState].call_async(GetState.Request())
        deadline = time.monotonic() + TIMEOUT_S
        while not still.done():
            assert self.thread.is_alive(), 'the node has ended'
            assert time.monotonic() < deadline, 'the node does not answer any more'
            self.executor.spin_once(timeout_sec=0.01)
        return future.result() if future.done() else None

    def _kind(self, request):
        return next(kind for kind in self.services if isinstance(request, kind.Request))

    def close(self) -> None:
        self.stop.set()
        self.thread.join()
        self.node.close()
        self.client.destroy_node()
        self.executor.shutdown()


@pytest.fixture(scope='module')
def peer(ros):
    peer = Peer()
    yield peer
    peer.close()


@cases(400)
@given(st.dictionaries(NAMES, JSON_VALUES | TEXT, max_size=4))
def test_values(changes):
    """A configuration, or one line that names the parameter; a configuration is always sound."""
    try:
        made = parameters.from_values({**DEFAULTS, **changes})
    except InputError as error:
        assert_one_line(error)
    else:
        flat = config.flatten(config.to_dict(made))
        for name, (low, high) in parameters.RANGES.items():
            assert low <= flat[name] <= high
        assert dataclasses.is_dataclass(made)


@st.composite
def values(draw) -> ParameterValue:
    return ParameterValue(
        type=draw(st.integers(0, 9) | st.integers(0, 255)),
        bool_value=draw(st.booleans()),
        integer_value=draw(st.integers(-(2**63), 2**63 - 1)),
        double_value=draw(st.floats()),
        string_value=draw(TEXT),
        double_array_value=draw(st.lists(st.floats(), max_size=3)),
        string_array_value=draw(st.lists(TEXT, max_size=3)),
    )


@st.composite
def settings_messages(draw) -> list[ParameterMessage]:
    names = draw(st.lists(NAMES | TEXT, max_size=3))
    return [ParameterMessage(name=name, value=draw(values())) for name in names]


@cases(250)
@given(wanted=settings_messages(), at_once=st.booleans())
def test_requests(peer, wanted, at_once):
    kind = SetParametersAtomically if at_once else SetParameters
    response = peer.call(kind.Request(parameters=wanted))
    if response is not None:
        results = [response.result] if at_once else response.results
        assert all(result.successful or result.reason for result in results)
    current = config.flatten(config.to_dict(peer.node.config))
    for name, value in current.items():
        assert peer.node.get_parameter(name).value == value, name


@cases(60)
@given(
    number=st.sampled_from([1, 2, 3, 4]) | st.integers(0, 255),
    label=st.sampled_from(['', '', 'configure', 'activate', 'deactivate', 'cleanup']) | TEXT,
)
def test_transitions(peer, number, label):
    """In any order, known or not. Shutting down is the user's right, and left out here."""
    request = ChangeState.Request()
    request.transition.id = number if number not in (5, 6, 7) else 99
    request.transition.label = label if 'shutdown' not in label else ''
    peer.call(request)


@cases(60)
@given(name=st.sampled_from(sorted(DEFAULTS)) | TEXT, value=NUMBERS | TEXT | st.booleans())
def test_overrides(ros, name, value):
    """A node starts with what it is given, or one line says why not."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = max(-(2**63), min(value, 2**63 - 1))
    try:
        override = Parameter(name, value=value)
        node = PerceptionNode(FakeEngine, namespace='once', parameter_overrides=[override])
    except InputError as error:
        assert_one_line(error)
    else:
        node.destroy_node()
