"""Waiting for a lifecycle node from outside: scripts and launch files start other things then."""

from __future__ import annotations

import time

from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState
from rclpy.client import Client
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from tag_perception.config import InputError
from tag_perception.ros.process import Stop

POLL_S = 0.2


def wait_active(ros: Node, name: str, timeout_s: float, stop: Stop) -> None:
    """Ask the node `name` for its state until it is active or `stop` is set.

    Its transition events would tell as well, but not to somebody who discovers it a moment late.
    Runs `ros`, which nobody else may spin. Raises InputError when the time is up.
    """
    client: Client = ros.create_client(GetState, f'{name}/get_state')
    executor = SingleThreadedExecutor()
    executor.add_node(ros)
    try:
        state = _poll(client, executor, time.monotonic() + timeout_s, stop)
    finally:
        executor.remove_node(ros)
        executor.shutdown()
    if state is not None:
        raise InputError(f'{name} is {state} after {timeout_s:g} s, not active: see its log')


def _poll(
    client: Client, executor: SingleThreadedExecutor, deadline_s: float, stop: Stop
) -> str | None:
    """None once the node is active or `stop` is set, its last state once the time is up."""
    state = 'not there'
    while not stop.is_set():
        if client.service_is_ready():
            answer = client.call_async(GetState.Request())
            executor.spin_until_future_complete(answer, timeout_sec=1.0)
            response = answer.result()  # None without an answer
            if response is not None:
                if response.current_state.id == State.PRIMARY_STATE_ACTIVE:
                    return None
                state = response.current_state.label
        if time.monotonic() > deadline_s:
            return state
        stop.wait(POLL_S)
    return None
