from __future__ import annotations

import threading

import pytest
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode

from tag_perception.config import InputError
from tag_perception.ros.process import Stop
from tag_perception.ros.readiness import wait_active


@pytest.fixture
def candidate(ros):
    """A lifecycle node that is served in another thread."""
    node, executor, ended = LifecycleNode('candidate'), SingleThreadedExecutor(), Stop()
    executor.add_node(node)

    def serve():
        while not ended.is_set():
            executor.spin_once(timeout_sec=0.05)

    thread = threading.Thread(target=serve)
    thread.start()
    yield node
    ended.set()
    thread.join()
    executor.remove_node(node)
    executor.shutdown()
    node.destroy_node()


def test_it_returns_when_the_node_is_active(client, candidate):
    candidate.trigger_configure()
    later = threading.Timer(0.5, candidate.trigger_activate)
    later.start()
    wait_active(client, '/candidate', 60, Stop())
    assert candidate._state_machine.current_state[1] == 'active'
    later.join()


def test_a_node_that_rests_is_named_with_its_state(client, candidate):
    candidate.trigger_configure()
    with pytest.raises(InputError, match=r'/candidate is inactive after 3 s'):
        wait_active(client, '/candidate', 3, Stop())


def test_nobody_there(client):
    with pytest.raises(InputError, match=r'/nobody is not there after 0\.3 s'):
        wait_active(client, '/nobody', 0.3, Stop())


def test_it_ends_when_it_is_told_to(client):
    stop = Stop()
    stop.set()
    wait_active(client, '/nobody', 60, stop)
