from __future__ import annotations

import os
import re
import signal
import threading
import time

import pytest
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


def test_the_node_ends_cleanly_in_every_state(start, client, spin_until):
    """On SIGINT or SIGTERM: unconfigured, configuring, active, and with a frame in hand.

    Beside them one that is started with a wrong parameter: all load torch at the same time.
    """
    names = 'idle', 'loading', 'busy', 'active'
    remap = [('-r', f'__node:={name}', '-r', f'image:=/{name}/image') for name in names]
    idle = start(*NODE, 'autostart:=false', *remap[0])
    loading = start(*NODE, 'autostart:=true', *remap[1], HANG='configure')
    busy = start(*NODE, 'autostart:=true', *remap[2], HANG='frame')
    active = start(*NODE, 'autostart:=true', *remap[3])
    wrong = start('-m', 'tag_perception', 'node', '--ros-args', '-p', 'engine.presett:=tag')
    loading.wait_for('hanging in configure')
    spin_until(lambda: 'idle' in client.get_node_names(), client)
    sight = client.create_publisher(Image, '/active/image', 1)
    spin_until(lambda: sight.get_subscription_count() > 0, client)
    sight.publish(make_image())
    images = client.create_publisher(Image, '/busy/image', 1)

    def busy_has_an_image() -> bool:
        if 'hanging in frame' not in busy.output:
            images.publish(make_image())  # best effort: the first ones may go nowhere
        return 'hanging in frame' in busy.output

    spin_until(busy_has_an_image, client, timeout_s=2 * TIMEOUT_S)

    idle.end(signal.SIGTERM)
    loading.end(signal.SIGINT)
    active.end(signal.SIGINT)
    busy.end(signal.SIGTERM)
    assert re.search(r'(\d+) received = 0 processed \+ \1 superseded \+ 0 rejected', busy.output)
    assert '0 superseded + 0 rejected' in active.output
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
