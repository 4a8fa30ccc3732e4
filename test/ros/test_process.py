from __future__ import annotations

import os
import re
import signal
import threading
import time
from contextlib import suppress

import pytest
from lifecycle_msgs.srv import ChangeState, GetState
from sensor_msgs.msg import Image

from tag_perception.config import InputError
from tag_perception.ros.bag import make_bag
from tag_perception.ros.process import Stop, run
from tag_perception.ros.storage import BagReader

from .conftest import FAKES
from .fakes import TIMEOUT_S, make_image
from .test_bag import frames

NODE = (FAKES, 'node', '--ros-args', '-p')


def test_run_returns_the_exit_code_and_restores_the_handlers():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    assert run(lambda stop: None) == 0
    assert run(lambda stop: 3) == 3
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_run_raises_what_the_work_raises():
    def work(stop: Stop) -> None:
        raise InputError('wrong file')

    with pytest.raises(InputError, match='wrong file'):
        run(work)


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_wakes_the_work_and_the_exit_code_is_0(number):
    def work(stop: Stop) -> int:
        threading.Timer(0.05, os.kill, (os.getpid(), number)).start()
        assert stop.wait(30)
        return 5

    assert run(work) == 0


def test_a_signal_that_another_thread_gets_is_not_lost():
    def work(stop: Stop) -> int:
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)
        assert stop.wait(TIMEOUT_S)
        return 5

    assert run(work) == 0


HANGING = """
import sys, time
from tag_perception.ros.process import run

def work(stop):
    stop.on_abandon(lambda: print('saved'))
    print('working', flush=True)
    time.sleep(1000)

sys.exit(run(work))
"""


def test_work_that_hangs_is_saved_and_left_behind(start):
    process = start('-c', HANGING)
    process.wait_for('working')
    process.end(signal.SIGTERM)
    assert 'saved' in process.output


STATES = {  # how each comes about: HANG, and the transitions asked for from outside
    'unconfigured': ('', ()),
    'configuring': ('configure', ()),
    'inactive': ('', ('configure',)),
    'active': ('', ('configure', 'activate')),
    'busy': ('frame', ('configure', 'activate')),
    'publishing': ('publish', ('configure', 'activate')),
    'deactivating': ('frame', ('configure', 'activate')),
    'finalized': ('', ('shutdown',)),
}
GOALS = {'configure': 'inactive', 'activate': 'active', 'shutdown': 'finalized'}


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM], ids=['SIGINT', 'SIGTERM'])
def test_the_node_ends_cleanly_in_every_state(start, client, spin_until, number):
    """Each with exit code 0 within two seconds; side by side, for all load torch."""

    def begin(state: str, hang: str):
        autostart = str(state == 'configuring').lower()
        remap = '-r', f'__node:={state}', '-r', f'image:=/{state}/image'
        return start(*NODE, f'autostart:={autostart}', *remap, HANG=hang)

    def ask(state: str, label: str) -> None:
        """Until the node is there: what is said before processes know each other gets lost."""
        change = client.create_client(ChangeState, f'/{state}/change_state')
        get = client.create_client(GetState, f'/{state}/get_state')
        services = change, get
        spin_until(lambda: all(s.service_is_ready() for s in services), client, timeout_s=120)
        request, answers = ChangeState.Request(), []
        request.transition.label = label

        def reached() -> bool:
            time.sleep(0.05)
            answers.append(get.call_async(GetState.Request()))
            labels = [a.result().current_state.label for a in answers if a.done()]
            return GOALS[label] in labels

        for _ in range(12):
            change.call_async(request)
            with suppress(AssertionError):
                return spin_until(reached, client, timeout_s=TIMEOUT_S / 6)
        raise AssertionError(f'{state} does not {label}')

    def feed(state: str, until) -> None:
        images = client.create_publisher(Image, f'/{state}/image', 1)

        def fed() -> bool:
            images.publish(make_image())  # best effort: the first ones may go nowhere
            return until()

        spin_until(fed, client)

    nodes = {state: begin(state, hang) for state, (hang, _) in STATES.items()}
    for state, (_, labels) in STATES.items():
        for label in labels:
            ask(state, label)
    depths: list[Image] = []
    client.create_subscription(Image, '/active/depth/image', depths.append, 5)
    feed('active', lambda: bool(depths))
    for state in ('busy', 'deactivating'):
        feed(state, lambda state=state: 'hanging in frame' in nodes[state].output)
    feed('publishing', lambda: 'hanging in publish' in nodes['publishing'].output)
    change = client.create_client(ChangeState, '/deactivating/change_state')
    request = ChangeState.Request()
    request.transition.label = 'deactivate'  # which waits for the frame in hand
    spin_until(change.service_is_ready, client)
    change.call_async(request)
    nodes['configuring'].wait_for('hanging in configure')
    spin_until(lambda: 'unconfigured' in client.get_node_names(), client)

    for node in nodes.values():
        node.end(number)
    counts = r'(\d+) received = {} processed \+ (\d+) superseded \+ 0 rejected'
    for state in ('busy', 'publishing'):
        received, superseded = re.search(counts.format(0), nodes[state].output).groups()
        assert received == superseded > '0'
    assert re.search(counts.format(r'[1-9]\d*'), nodes['active'].output)
    # Who leaves a hanging frame behind is in the graph until its lease ends, where others look.
    topics = [f'/{state}/depth/image' for state in STATES]
    spin_until(lambda: not any(map(client.count_publishers, topics)), client)


def test_a_wrong_parameter_is_one_line_and_exit_code_2(start):
    wrong = start('-m', 'tag_perception', 'node', '--ros-args', '-p', 'engine.presett:=tag')
    assert wrong.wait() == 2
    said = "perception_node: unknown parameter 'engine.presett'; did you mean engine.preset?\n"
    assert wrong.output == said


def test_process_bag_ends_cleanly_and_keeps_its_bag(start, tmp_path):
    """While it works, and while the engine hangs in a frame."""
    make_bag(frames(400), tmp_path / 'in.mcap')
    source, outputs = str(tmp_path / 'in.mcap'), [tmp_path / 'a.mcap', tmp_path / 'b.mcap']
    working = start(FAKES, 'process-bag', source, str(outputs[0]))
    hanging = start(FAKES, 'process-bag', source, str(outputs[1]), HANG='frame')
    deadline = time.monotonic() + 60
    while not outputs[0].exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    working.end()
    hanging.wait_for('hanging in frame')
    hanging.end(signal.SIGTERM)
    for output in outputs:
        with BagReader(output) as reader:
            depths = reader.counts.get('/perception/depth/image', 0)
            assert all(n == depths for n in reader.counts.values())
            assert len(list(reader.messages({'/perception/depth/image'}))) == depths
    assert depths == 0
