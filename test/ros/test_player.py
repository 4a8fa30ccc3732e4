from __future__ import annotations

import signal
import threading
import time

import numpy as np
import pytest
import rclpy
from builtin_interfaces.msg import Time
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.serialization import deserialize_message
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import String
from tf2_msgs.msg import TFMessage

from tag_perception.config import InputError
from tag_perception.ros.bag import make_bag
from tag_perception.ros.node import PerceptionNode
from tag_perception.ros.outputs import OUTPUTS
from tag_perception.ros.player import Playback, play_bag
from tag_perception.ros.process import Stop
from tag_perception.ros.recorder import record_bag
from tag_perception.ros.storage import BagReader, BagWriter

from .conftest import FAKES
from .fakes import FakeEngine, make_image
from .test_bag import frames


@pytest.fixture
def player(ros):
    node = rclpy.create_node('player')
    yield node
    node.destroy_node()


def play(player, path, playback: Playback, stop: Stop | None = None) -> threading.Thread:
    """Play on a thread; the result lands in its attribute `played`."""

    def work() -> None:
        thread.played = play_bag(path, player, playback, stop=stop)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def nanoseconds(stamp: Time) -> int:
    return stamp.sec * 10**9 + stamp.nanosec


def test_playing_keeps_bytes_order_and_pace_and_drives_the_clock(
    tmp_path, player, client, spin_until
):
    make_bag(frames(5), tmp_path / 'in.mcap')
    images: list[Image] = []
    clocks: list[int] = []
    statics: list[TFMessage] = []
    client.create_subscription(Image, '/image', images.append, 10)
    client.create_subscription(
        Clock, '/clock', lambda clock: clocks.append(nanoseconds(clock.clock)), 1000
    )
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    start = time.monotonic()
    thread = play(player, tmp_path / 'in.mcap', Playback(rate=0.5, clock=True))
    spin_until(lambda: len(images) == 5 and not thread.is_alive(), client)
    assert time.monotonic() - start > 4 * 0.0588 / 0.5
    client.create_subscription(TFMessage, '/tf_static', statics.append, latched)
    spin_until(lambda: bool(statics), client)  # for one who comes late
    assert thread.played.messages['/image'] == 5
    assert thread.played.unanswered == 0
    for image, frame in zip(images, frames(5), strict=True):
        assert nanoseconds(image.header.stamp) == frame.stamp_ns
        pixels = np.array(image.data, np.uint8).reshape(24, 32, 3)[..., ::-1]
        np.testing.assert_array_equal(pixels, frame.image)
    assert clocks == sorted(clocks)
    assert (clocks[0], clocks[-1]) == (frames(1)[0].stamp_ns, frames(5)[-1].stamp_ns)
    assert len(set(clocks)) > 10  # it also runs between the frames


def test_looping_starts_again_until_stopped(tmp_path, player, client, spin_until):
    make_bag(frames(2, None, False), tmp_path / 'in.mcap')
    stamps: list[int] = []
    client.create_subscription(
        Image, '/image', lambda image: stamps.append(nanoseconds(image.header.stamp)), 10
    )
    stop = Stop()
    thread = play(player, tmp_path / 'in.mcap', Playback(rate=10, loop=True), stop)
    spin_until(lambda: len(stamps) >= 7, client)
    stop.set()
    thread.join()
    first, second = (frame.stamp_ns for frame in frames(2))
    assert stamps[:6] == [first, second] * 3


def test_lockstep_loses_no_frame_of_a_slow_node(tmp_path, player, client, spin_until):
    class SlowEngine(FakeEngine):
        def __call__(self, image, camera):
            time.sleep(0.03)
            return super().__call__(image, camera)

    make_bag(frames(12), tmp_path / 'in.mcap')
    node = PerceptionNode(SlowEngine, parameter_overrides=[Parameter('autostart', value=True)])
    node.autostart()
    results: list[int] = []
    client.create_subscription(
        Image,
        '/perception/depth/image',
        lambda image: results.append(nanoseconds(image.header.stamp)),
        20,
    )
    thread = play(player, tmp_path / 'in.mcap', Playback(rate=50, lockstep='/perception'))
    spin_until(lambda: len(results) == 12 and not thread.is_alive(), node, client)
    assert thread.played.unanswered == 0
    assert results == [frame.stamp_ns for frame in frames(12)]
    counts = node.channels[0].input.mailbox.counts
    assert (counts.received, counts.processed) == (12, 12)
    node.close()


def test_lockstep_without_a_node_says_whom_it_waited_for(tmp_path, player, monkeypatch):
    monkeypatch.setattr('tag_perception.ros.player.START_S', 0.2)
    make_bag(frames(1), tmp_path / 'in.mcap')
    with pytest.raises(InputError, match='no active node /eye subscribes to /image'):
        play_bag(tmp_path / 'in.mcap', player, Playback(lockstep='/eye'))


def test_lockstep_goes_on_after_a_rejected_frame(tmp_path, player, client, spin_until):
    with BagWriter(tmp_path / 'in.mcap') as writer:
        writer.write('/image', make_image('nv21', stamp_ns=1), 1)
        writer.write('/image', make_image(stamp_ns=2), 2)
    node = PerceptionNode(FakeEngine, parameter_overrides=[Parameter('autostart', value=True)])
    node.autostart()
    thread = play(player, tmp_path / 'in.mcap', Playback(lockstep='/perception'))
    spin_until(lambda: not thread.is_alive(), node, client)
    assert thread.played.unanswered == 1
    counts = node.channels[0].input.mailbox.counts
    assert (counts.received, counts.processed, counts.rejected) == (2, 1, 1)
    node.close()


def test_lockstep_sends_a_lost_frame_again(tmp_path, player, client, spin_until, monkeypatch):
    monkeypatch.setattr('tag_perception.ros.answers.LOST_AFTER', 2)
    make_bag(frames(2), tmp_path / 'in.mcap')
    node = PerceptionNode(FakeEngine, parameter_overrides=[Parameter('autostart', value=True)])
    lost: list[Image] = []
    arrive = node.channels[0].input._on_image

    def lose_the_first(message: Image, received) -> None:
        if lost:
            arrive(message, received)
        lost.append(message)

    node.channels[0].input._on_image = lose_the_first
    node.autostart()
    thread = play(player, tmp_path / 'in.mcap', Playback(lockstep='/perception'))
    spin_until(lambda: not thread.is_alive(), node, client)
    assert len(lost) == 3
    assert thread.played.unanswered == 0
    assert node.channels[0].input.mailbox.counts.processed == 2
    node.close()


def test_topics_of_unknown_types_are_left_out(tmp_path, player, monkeypatch):
    with BagWriter(tmp_path / 'in.mcap') as writer:
        writer.write('/known', String(data='x'), 1)
        writer.write('/strange', String(data='x'), 2)

    class Reader(BagReader):
        def __init__(self, path) -> None:
            super().__init__(path)
            self.topics['/strange'] = 'alien_msgs/msg/Greeting'

    monkeypatch.setattr('tag_perception.ros.player.BagReader', Reader)
    monkeypatch.setattr('tag_perception.ros.player.MATCHING_S', 0.2)
    played = play_bag(tmp_path / 'in.mcap', player, Playback(rate=1000))
    assert played.messages == {'/known': 1}


@pytest.mark.parametrize('rate', [0.0, -1.0, float('nan'), float('inf')])
def test_senseless_rates_are_refused(rate):
    with pytest.raises(InputError, match='is not a positive number'):
        Playback(rate=rate)


def test_a_recording_holds_what_the_node_published(tmp_path, client, spin_until):
    node = PerceptionNode(FakeEngine, parameter_overrides=[Parameter('autostart', value=True)])
    node.autostart()
    recorder, stop, ready = rclpy.create_node('recorder'), Stop(), threading.Event()
    result: list[dict[str, int]] = []
    thread = threading.Thread(
        target=lambda: result.append(
            record_bag(tmp_path / 'out.mcap', recorder, on_ready=lambda n: ready.set(), stop=stop)
        )
    )
    thread.start()
    images = client.create_publisher(Image, 'image', 1)
    infos = client.create_publisher(CameraInfo, 'camera_info', 1)
    spin_until(lambda: ready.is_set() and images.get_subscription_count() > 0, node, client)
    mailbox = node.channels[0].input.mailbox
    for stamp_ns in (10**18 + 1, 10**18 + 2):
        images.publish(make_image(stamp_ns=stamp_ns))
        spin_until(lambda n=stamp_ns: mailbox.counts.processed >= n % 10, node, client)
    stop.set()
    thread.join()
    path = tmp_path / 'out.mcap'
    assert infos.get_subscription_count()
    counts = {topic: n for topic, n in result[0].items() if topic != '/diagnostics'}
    for topic in ('semantic/image', 'semantic/label_info', 'depth/image', 'vision_info'):
        assert counts[f'/perception/{topic}'] == 2
    assert '/perception/detections' not in counts  # withheld: there was no calibration
    with BagReader(path) as reader:
        assert reader.counts.items() >= counts.items()
        for topic, stamp_ns, data in reader.messages(set(counts)):
            message = reader.decode(topic, data)
            assert nanoseconds(message.header.stamp) == stamp_ns
        assert reader.latched('/perception/vision_info')
    node.close()
    recorder.destroy_node()


def test_the_whole_chain_between_processes_loses_nothing(start, tmp_path):
    """Node, recorder and player as a user starts them; 20 frames in lockstep; Ctrl-C."""
    make_bag(frames(20), tmp_path / 'in.mcap')
    output = tmp_path / 'out.mcap'
    verb = '-m', 'tag_perception'
    node = start(FAKES, 'node', '--ros-args', '-p', 'use_sim_time:=true')
    recorder = start(*verb, 'record-bag', str(output))
    recorder.wait_for('recording ')
    player = start(*verb, 'play-bag', str(tmp_path / 'in.mcap'), '--clock', '--lockstep')
    assert player.wait() == 0, player.output
    assert 'without results' not in player.output
    time.sleep(2.0)  # what is on its way to the recorder arrives
    recorder.end()
    node.end()
    assert '20 received = 20 processed + 0 superseded + 0 rejected' in node.output
    stamps = [frame.stamp_ns for frame in frames(20)]
    with BagReader(output) as reader:
        for wanted in OUTPUTS:
            topic = f'/perception/{wanted.topic}'
            if wanted.lazy:
                assert topic not in reader.topics
                continue
            got = [deserialize_message(d, wanted.type) for _, _, d in reader.messages({topic})]
            assert [nanoseconds(message.header.stamp) for message in got] == stamps, topic
            assert {message.header.frame_id for message in got} == {'camera_optical_frame'}
        # Diagnostics of a node on simulated time lie on the bag's own time line.
        times = [stamp for _, stamp, _ in reader.messages({'/diagnostics'})]
        assert all(stamp <= stamps[-1] for stamp in times)


def test_the_last_message_arrives_although_its_publisher_goes(start, tmp_path, client, spin_until):
    """A process that ended right after its last message took it along in two of five runs."""
    make_bag(frames(3, None, False), tmp_path / 'in.mcap')
    last_ns = [frame.stamp_ns for frame in frames(3)][-1]
    images: list[Image] = []
    client.create_subscription(Image, '/image', images.append, 10)
    for _ in range(3):
        images.clear()
        player = start('-m', 'tag_perception', 'play-bag', str(tmp_path / 'in.mcap'))
        assert player.wait() == 0, player.output
        assert 'nobody' not in player.output
        spin_until(lambda: images and nanoseconds(images[-1].header.stamp) == last_ns, client)


def test_playing_to_nobody_is_told(tmp_path, player, monkeypatch, caplog):
    """Whoever wants images is waited for, not somebody who wants their calibration."""
    monkeypatch.setattr('tag_perception.ros.player.MATCHING_S', 0.2)
    make_bag(frames(2, None, False), tmp_path / 'in.mcap')
    player.create_subscription(CameraInfo, '/camera_info', lambda info: None, 10)
    assert play_bag(tmp_path / 'in.mcap', player, Playback(rate=50)).messages['/image'] == 2
    assert 'nobody subscribes to /image after 0.2 s: playing anyway' in caplog.text


def test_a_bag_without_images_waits_for_any_subscriber(tmp_path, player, caplog):
    with BagWriter(tmp_path / 'in.mcap') as writer:
        writer.write('/word', String(data='x'), 1)
    player.create_subscription(String, '/word', lambda word: None, 10)
    assert play_bag(tmp_path / 'in.mcap', player, Playback()).messages == {'/word': 1}
    assert 'nobody' not in caplog.text


SUBSCRIBER = """
import rclpy
from sensor_msgs.msg import Image
rclpy.init()
node = rclpy.create_node('subscriber')
node.create_subscription(Image, '/image', lambda m: print('got', m.header.stamp.nanosec), 10)
rclpy.spin(node)
"""


@pytest.fixture
def stopped_subscriber(start, player, spin_until):
    """A process that subscribes to /image, and is stopped as soon as `player` knows of it."""
    subscriber = start('-c', SUBSCRIBER)
    probe = player.create_publisher(Image, '/image', 1)
    spin_until(probe.get_subscription_count, player)
    player.destroy_publisher(probe)
    subscriber.signal(signal.SIGSTOP)
    return subscriber


def test_the_last_message_waits_for_a_subscriber_that_is_held_up(
    tmp_path, player, stopped_subscriber
):
    make_bag(frames(3, None, False), tmp_path / 'in.mcap')
    thread = play(player, tmp_path / 'in.mcap', Playback())
    time.sleep(2.0)  # all is sent after half a second
    stopped_subscriber.signal(signal.SIGCONT)
    thread.join()
    player.destroy_node()
    assert thread.played.messages['/image'] == 3
    stopped_subscriber.wait_for(f'got {frames(3)[-1].stamp_ns % 10**9}')


def test_playing_ends_although_a_subscriber_never_answers(
    tmp_path, player, stopped_subscriber, monkeypatch, caplog
):
    monkeypatch.setattr('tag_perception.ros.player.ACKNOWLEDGING_S', 0.5)
    make_bag(frames(3, None, False), tmp_path / 'in.mcap')
    play_bag(tmp_path / 'in.mcap', player, Playback())
    assert 'a subscriber has not taken the last messages of /image' in caplog.text


def test_playing_ends_cleanly(start, tmp_path):
    make_bag(frames(50, None, False), tmp_path / 'in.mcap')
    bag = str(tmp_path / 'in.mcap')
    process = start('-m', 'tag_perception', 'play-bag', bag, '--loop', '--rate', '0.1')
    process.wait_for('play-bag:')
    process.end()
