"""What goes wrong around a node: processes die, time jumps, disks fill, nobody reads."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image

from tag_perception.ros import transport
from tag_perception.ros.storage import BagReader, BagWriter, message_class

from .conftest import FAKES, Stopwatch
from .fakes import TIMEOUT_S, make_image, make_info
from .rig import QuickEngine, resident_bytes
from .test_node import SUCCESS, Bench, bench, values  # noqa: F401

RESTART_S = 10.0
RESPAWN_DELAY_S = 2.0
"""perception.launch.py waits as long with respawn:=true."""
CAMERA_HZ = '20'


def test_a_node_killed_within_a_frame_and_restarted_publishes_within_ten_seconds(
    start, client, spin_until
):
    depths: list[Image] = []
    client.create_subscription(Image, '/perception/depth/image', depths.append, 5)
    start(FAKES, 'camera', CAMERA_HZ)
    first = start(FAKES, 'node', HANG='frame')
    first.wait_for('hanging in frame')
    with Stopwatch() as watch:
        first.kill()
        start(FAKES, 'node')
        spin_until(lambda: len(depths) > 3, client, timeout_s=2 * TIMEOUT_S)
    assert watch.seconds + RESPAWN_DELAY_S < RESTART_S


def test_only_the_shared_memory_of_killed_processes_is_freed(tmp_path):
    for name in ('fastdds_dead', 'fastrtps_dead', 'fastdds_alive', 'fastdds_new', 'fastdds_port7'):
        for path in (tmp_path / name, tmp_path / f'{name}_el'):
            path.touch()
            os.utime(path, (0, 0) if 'new' not in name else None)
    with (tmp_path / 'fastdds_alive_el').open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        transport.free_orphans(tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {
        name + end
        for name in ('fastdds_alive', 'fastdds_new', 'fastdds_port7')
        for end in ('', '_el')
    }


def test_a_camera_that_dies_is_noticed_and_one_that_returns_is_used(start, bench):  # noqa: F811
    bench = bench(stale_after_s=0.5)
    bench.node.autostart()
    camera = start(FAKES, 'camera', CAMERA_HZ)
    bench.until(lambda: bench.counts.processed > 3)
    camera.kill()
    assert 'no image on /image for' in bench.diagnostics(input='stale')['input'].message
    before = bench.counts
    start(FAKES, 'camera', CAMERA_HZ)
    bench.until(lambda: bench.counts.processed > before.processed + 3)
    bench.diagnostics(input='ok')
    assert bench.counts.rejected == 0


@pytest.mark.parametrize('simulated', [False, True])
def test_time_may_jump_back_and_forth(bench, simulated):  # noqa: F811
    """A bag that starts over, a clock that is set: each image is processed under its own stamp."""
    bench = bench(use_sim_time=simulated)
    bench.node.autostart()
    bench.connect()
    bench.listen('depth/image')
    clock = bench.client.create_publisher(Clock, '/clock', 1)
    if simulated:
        bench.until(lambda: clock.get_subscription_count() > 0)
    bench.send_info(make_info())
    stamps_ns = [10**18, 10**18 + 10**8, 5, 2 * 10**18, 0, 10**9]
    for stamp_ns in stamps_ns:
        tick = Clock()
        tick.clock.sec, tick.clock.nanosec = divmod(stamp_ns, 10**9)
        clock.publish(tick)
        if simulated:
            now = bench.node.get_clock().now
            bench.until(lambda now=now, stamp_ns=stamp_ns: now().nanoseconds == stamp_ns)
        bench.send(make_image(stamp_ns=stamp_ns))
    bench.until(lambda: len(bench.received['depth/image']) == len(stamps_ns))
    stamps = [message.header.stamp for message in bench.received['depth/image']]
    assert [stamp.sec * 10**9 + stamp.nanosec for stamp in stamps] == stamps_ns
    assert bench.counts.processed == len(stamps_ns)
    latency = values(bench.diagnostics(input='ok')['latency'])
    assert all(np.isfinite(float(value)) for value in latency.values())


DEAF = """
import sys, time, rclpy
from tag_perception.ros.outputs import OUTPUTS
from tag_perception.ros import session
with session.client(sys.argv[1]) as node:
    for output in OUTPUTS:
        node.create_subscription(output.type, f'/perception/{output.topic}', print, output.qos())
    print('subscribed', flush=True)
    time.sleep(1000)
"""


@pytest.mark.parametrize('stopped', [False, True], ids=['never spins', 'is stopped'])
def test_a_subscriber_that_never_reads_holds_nobody_up(start, bench, stopped):  # noqa: F811
    bench = bench()
    bench.node._build_engine = QuickEngine
    bench.node.autostart()
    bench.connect()
    bench.listen('depth/image')
    name = 'stopped' if stopped else 'deaf'  # one that was killed is counted for 20 s more
    deaf = start('-c', DEAF, name)
    deaf.wait_for('subscribed')
    listeners = bench.node.get_subscriptions_info_by_topic
    bench.until(lambda: name in {i.node_name for i in listeners('/perception/depth/image')})
    if stopped:
        deaf._process.send_signal(signal.SIGSTOP)
    before, longest_s = resident_bytes(), 0.0
    for index in range(40):
        with Stopwatch() as watch:
            bench.send(make_image(size=(256, 512), stamp_ns=index))
        longest_s = max(longest_s, watch.seconds)
    bench.until(lambda: bench.received['depth/image'][-1].header.stamp.nanosec == 39)
    bench.received['depth/image'].clear()
    assert bench.counts.processed == 40
    assert longest_s < 2.0
    assert resident_bytes() - before < 64 * 2**20  # 40 frames are 58 MB


@pytest.fixture
def recording(start, bench, tmp_path):  # noqa: F811
    """`recording()` → the recorder's process, its file, and the node it records."""

    def record():
        its_bench = bench()
        its_bench.node._build_engine = QuickEngine
        its_bench.node.autostart()
        its_bench.connect()
        path = tmp_path / 'out.mcap'
        recorder = start('-m', 'tag_perception', 'record-bag', str(path))
        its_bench.until(lambda: 'recording ' in recorder.output)
        return recorder, path, its_bench

    return record


def depths_in(path: Path) -> list[int]:
    """Stamps of the depth images in a recording, each of which is whole."""
    with BagReader(path) as reader:
        messages = [
            reader.decode(topic, data)
            for topic, _, data in reader.readable()
            if topic == '/perception/depth/image'
        ]
        assert len(messages) == reader.counts.get('/perception/depth/image', 0)
    assert all(len(message.data) == message.height * message.step > 0 for message in messages)
    return [message.header.stamp.nanosec for message in messages]


def send_slowly(bench: Bench, count: int) -> None:  # noqa: F811
    for index in range(1, count + 1):
        bench.send(make_image(size=(256, 512), stamp_ns=index))
        time.sleep(0.05)


def test_a_killed_recording_is_readable_up_to_its_last_complete_chunk(recording):
    recorder, path, node = recording()
    send_slowly(node, 20)
    node.until(lambda: len(depths_in(path)) >= 16)  # a chunk is closed after two frames of 0.7 MB
    recorder.kill()
    stamps = depths_in(path)
    assert stamps == list(range(1, len(stamps) + 1))
    assert len(stamps) >= 16


def test_a_full_disk_ends_the_recording_in_one_line_and_keeps_what_is_there(recording):
    recorder, path, node = recording()
    limit = 6 * 2**20, 6 * 2**20  # of a file's size; a disk of our own would need root
    resource.prlimit(recorder._process.pid, resource.RLIMIT_FSIZE, limit)
    send_slowly(node, 40)
    assert recorder.wait() == 2, recorder.output
    assert f'{path}: cannot be written: File too large' in recorder.output
    assert 'Traceback' not in recorder.output
    stamps = depths_in(path)
    assert stamps == list(range(1, len(stamps) + 1))
    assert len(stamps) >= 5


def test_a_cut_recording_keeps_every_whole_chunk(tmp_path):
    """At any length: no message is lost that a complete chunk holds, and none is made up."""
    whole = tmp_path / 'whole.mcap'
    with BagWriter(whole) as writer:
        for index in range(40):
            image = make_image(size=(200, 300), stamp_ns=index)
            writer.write('/image', image, 10**18 - index)  # log times may fall
    content, ends = whole.read_bytes(), []
    for keep in range(5 * 2**18, len(content), 2**18):
        cut = tmp_path / 'cut.mcap'
        cut.write_bytes(content[:keep])
        with BagReader(cut) as reader:
            times = [stamp_ns for _, stamp_ns, _ in reader.readable()]
            assert reader.damage is not None
            assert times == sorted(times)
            assert sorted(times) == sorted(10**18 - index for index in range(len(times)))
            assert reader.counts == {'/image': len(times)}
            assert message_class(reader.topics['/image']) is Image
        ends.append(len(times))
    assert ends == sorted(ends)
    assert ends[-1] >= 34


def test_fifty_lifecycles_leave_nothing_behind(bench):  # noqa: F811
    bench = bench(autostart=False)
    bench.node._build_engine = QuickEngine
    sizes: list[tuple] = []
    memory: list[int] = []
    for cycle in range(50):
        assert bench.node.trigger_configure() == SUCCESS
        assert bench.node.trigger_activate() == SUCCESS
        if cycle % 10 == 9:
            bench.connect()
            bench.send(make_image())
        assert bench.node.trigger_deactivate() == SUCCESS
        assert bench.node.trigger_cleanup() == SUCCESS
        if cycle % 10 == 9:
            bench.until(lambda: bench.images.get_subscription_count() == 0)
            sizes.append(
                (
                    threading.active_count(),
                    len(os.listdir('/proc/self/fd')),
                    len(list(bench.node.publishers)),
                    len(list(bench.node.subscriptions)),
                    len(list(bench.node.timers)),
                )
            )
            memory.append(resident_bytes())
    assert set(sizes[1:]) == {sizes[1]}, sizes
    assert memory[-1] - memory[1] < 4 * 2**20, memory
    assert bench.counts.processed == 5


def test_two_nodes_in_one_namespace_keep_apart(start, client, spin_until):
    received: dict[str, set[int]] = {'front': set(), 'rear': set()}
    publishers = {}
    for stamp, name in enumerate(received, 1):
        start(FAKES, 'node', '--ros-args', '-r', f'__node:={name}', '-r', f'image:={name}/image')
        publishers[stamp] = client.create_publisher(Image, f'{name}/image', 1)
        client.create_subscription(
            Image,
            f'/{name}/depth/image',
            lambda message, name=name: received[name].add(message.header.stamp.nanosec),
            5,
        )

    def both() -> bool:
        for stamp, publisher in publishers.items():
            publisher.publish(make_image(stamp_ns=stamp))
        time.sleep(0.05)
        return all(received.values())

    spin_until(both, client)
    assert received == {'front': {1}, 'rear': {2}}


def test_results_are_never_older_than_two_inferences(start, bench):  # noqa: F811
    """60 images a second for an engine that manages five; on a busy machine it manages fewer."""
    bench = bench()
    bench.node._build_engine = QuickEngine
    bench.node.autostart()
    bench.node._engine.inference_s = 0.2
    ages_s: list[float] = []
    times_s: list[float] = []

    def take(message: Image) -> None:
        stamp = message.header.stamp
        times_s.append(time.time())
        ages_s.append(times_s[-1] - stamp.sec - stamp.nanosec / 1e9)

    bench.client.create_subscription(Image, 'perception/depth/image', take, 5)
    start(FAKES, 'camera', '60')
    bench.until(lambda: len(ages_s) >= 5)
    before = resident_bytes()
    bench.until(lambda: len(ages_s) >= 25)
    inference_s = max(np.diff(times_s[2:]).max(), 0.2)
    assert max(ages_s[3:]) < 2 * inference_s
    assert resident_bytes() - before < 4 * 2**20
    assert bench.counts.superseded > bench.counts.processed
