"""Frames that move, through tf2_ros: as it is in a ROS installation, and as a stand-in."""

from __future__ import annotations

import importlib
import threading

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from rosgraph_msgs.msg import Clock
from tf2_msgs.msg import TFMessage

from tag_perception.ros import frames

from . import tf2_stand_in
from .fakes import golden_boxes, make_image, make_info
from .test_frames import pose
from .test_mailbox import wait_for
from .test_node import SUCCESS, Bench, bench  # noqa: F401

SECOND = 10**9
OPTICAL = 'camera_optical_frame'
LOOKS_AHEAD = (0.5, -0.5, 0.5, -0.5)


@pytest.fixture(params=['stand-in', 'tf2_ros'])
def tf2(request, monkeypatch) -> str:
    if request.param == 'stand-in':
        monkeypatch.setattr(frames, 'tf2_ros', tf2_stand_in)
    elif importlib.util.find_spec('tf2_ros') is None:
        pytest.skip('tf2_ros comes with a ROS installation only')
    return request.param


class Drive:
    """A car in the frame `odom`, 2 m/s along x, whose camera looks ahead from 1.2 m height."""

    def __init__(self, bench: Bench) -> None:  # noqa: F811
        self.bench = bench
        self.publisher = bench.client.create_publisher(TFMessage, '/tf', 100)

    def listened(self) -> None:
        self.bench.until(lambda: self.publisher.get_subscription_count() == 1)

    def tell(self, *seconds: int) -> None:
        """Publish where the camera is at these times, and let it arrive."""
        for second in seconds:
            step = pose('odom', OPTICAL, (2.0 * second, 0.0, 1.2), LOOKS_AHEAD)
            step.header.stamp.sec = second
            self.publisher.publish(TFMessage(transforms=[step]))
        last = frames.ClockTime(seconds=seconds[-1]).to_msg()
        self.bench.until(lambda: self._knows(last))

    def _knows(self, stamp) -> bool:
        try:
            self.bench.node.transforms._source.lookup('odom', OPTICAL, stamp)
        except frames.NoTransform:
            return False
        return True

    def send(self, stamp_ns: int) -> None:
        self.bench.send(make_image(stamp_ns=stamp_ns))


@pytest.fixture
def drive(tf2, bench):  # noqa: F811
    bench = bench(target_frame='odom', use_sim_time=True)
    bench.node.autostart()
    bench.connect()
    bench.listen('detections', 'semantic/image')
    bench.send_info(make_info())
    drive = Drive(bench)
    drive.listened()
    return drive


def test_boxes_lie_where_the_camera_was_at_the_stamp_of_the_image(drive):
    drive.tell(10, 12)
    drive.send(int(11.5 * SECOND))
    bench = drive.bench  # noqa: F811
    bench.until(lambda: bench.received['detections'])
    message = bench.received['detections'][0]
    assert message.header.frame_id == 'odom'
    assert (message.header.stamp.sec, message.header.stamp.nanosec) == (11, SECOND // 2)
    at = message.detections[0].bbox.center.position
    expected = np.add(golden_boxes().center_cam[0], (23.0, 0.0, 1.2))
    np.testing.assert_allclose([at.x, at.y, at.z], expected, atol=1e-5)


def test_a_stamp_that_tf_does_not_know_drops_boxes_and_says_so(drive):
    drive.tell(10, 12)
    bench = drive.bench  # noqa: F811
    drive.send(30 * SECOND)
    (report,) = [r for r in bench.node._reports() if r.name == 'transform']
    assert report.level == DiagnosticStatus.WARN
    assert report.values['misses'] > 0
    assert 'no transform odom ← camera_optical_frame' in report.message
    assert '\n' not in report.message
    bench.until(lambda: bench.received['semantic/image'])
    assert not bench.received['detections']
    drive.send(12 * SECOND)
    bench.until(lambda: bench.received['detections'])
    assert bench.received['detections'][0].header.stamp.sec == 12


def test_the_frame_in_hand_still_gets_its_pose_when_the_node_goes_to_rest(drive):
    drive.tell(10, 12)
    bench = drive.bench  # noqa: F811
    bench.engine.go.clear()
    bench.images.publish(make_image(stamp_ns=11 * SECOND))
    mailbox = bench.node.channels[0].input.mailbox
    bench.until(lambda: mailbox.in_hand)

    def go_on() -> None:
        wait_for(lambda: not mailbox.is_open)
        bench.engine.go.set()

    threading.Thread(target=go_on).start()
    assert bench.node.trigger_deactivate() == SUCCESS
    bench.until(lambda: bench.received['detections'])


def test_resting_leaves_nothing_behind(drive):
    node = drive.bench.node

    def sizes() -> tuple[int, int]:
        return len(list(node.subscriptions)), len(list(node.services))

    before = sizes()
    for _ in range(3):
        assert node.trigger_deactivate() == SUCCESS
        drive.bench.until(lambda: drive.publisher.get_subscription_count() == 0)
        assert node.trigger_activate() == SUCCESS
        drive.listened()
    assert sizes() == before
    drive.bench.connect()
    drive.tell(3, 4)
    drive.send(4 * SECOND)
    drive.bench.until(lambda: drive.bench.received['detections'])


def test_a_bag_that_starts_over_is_followed(drive, tf2):
    """tf2 ignores poses much older than its newest one, unless it notices the jump in time."""
    if tf2 == 'stand-in':
        pytest.skip('of tf2_ros itself, which comes with a ROS installation only')
    bench = drive.bench  # noqa: F811
    clock = bench.client.create_publisher(Clock, '/clock', 1)
    bench.until(lambda: clock.get_subscription_count() > 0)
    for second in (100, 5):
        tick = Clock()
        tick.clock.sec = second
        clock.publish(tick)
        now = bench.node.get_clock().now
        bench.until(lambda now=now, second=second: now().nanoseconds == second * SECOND)
        drive.tell(second - 1, second)
        bench.received['detections'].clear()
        drive.send(second * SECOND)
        bench.until(lambda: bench.received['detections'])
        assert bench.received['detections'][0].header.stamp.sec == second
