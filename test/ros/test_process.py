from __future__ import annotations

import os
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
from .fakes import make_image
from .test_bag import frames

LIMIT_S = 2.0
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
    assert process.end(signal.SIGTERM) < LIMIT_S
    assert 'saved' in process.output


def test_the_node_ends_cleanly_in_every_state(start, client, spin_until):
    """On SIGINT or SIGTERM: unconfigured, configuring, active, and with a frame in hand."""
    names = 'idle', 'loading', 'busy', 'active'
    remap = [('-r', f'__node:={name}', '-r', f'image:=/{name}/image') for name in names]
    idle = start(*NODE, 'autostart:=false', *remap[0])
    loading = start(*NODE, 'autostart:=true', *remap[1], HANG='configure')
    busy = start(*NODE, 'autostart:=true', *remap[2], HANG='frame')
    active = start(*NODE, 'autostart:=true', *remap[3])
    loading.wait_for('hanging in configure')
    spin_until(lambda: 'idle' in client.get_node_names(), client)
    for name in ('busy', 'active'):
        images = client.create_publisher(Image, f'/{name}/image', 1)
        spin_until(lambda images=images: images.get_subscription_count() > 0, client)
        time.sleep(0.3)  # until the other side knows of us too
        images.publish(make_image())
    busy.wait_for('hanging in frame')

    assert idle.end(signal.SIGTERM) < LIMIT_S
    assert loading.end(signal.SIGINT) < LIMIT_S
    assert active.end(signal.SIGINT) < LIMIT_S
    assert busy.end(signal.SIGTERM) < LIMIT_S
    assert '1 received = 0 processed + 1 superseded + 0 rejected' in busy.output
    assert '0 superseded + 0 rejected' in active.output


def test_wrong_parameters_end_the_node_with_one_line(start):
    process = start('-m', 'tag_perception', 'node', '--ros-args', '-p', 'engine.presett:=tag')
    assert process.wait() == 2
    said = "perception_node: unknown parameter 'engine.presett'; did you mean engine.preset?\n"
    assert process.output == said


@pytest.mark.parametrize('hang', ['nothing', 'frame'])
def test_process_bag_ends_cleanly_and_keeps_its_bag(start, tmp_path, hang):
    make_bag(frames(400), tmp_path / 'in.mcap')
    output = tmp_path / 'out.mcap'
    process = start(FAKES, 'process-bag', str(tmp_path / 'in.mcap'), str(output), HANG=hang)
    if hang == 'frame':
        process.wait_for('hanging in frame')
    deadline = time.monotonic() + 30
    while not output.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert process.end() < LIMIT_S
    with BagReader(output) as reader:
        depths = reader.counts.get('/perception/depth/image', 0)
        assert all(n == depths for n in reader.counts.values())
        assert len(list(reader.messages({'/perception/depth/image'}))) == depths
    assert depths == 0 if hang == 'frame' else depths <= 400
