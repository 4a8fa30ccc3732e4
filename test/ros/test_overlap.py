"""Frames are published while the next ones are on the GPU; on the CPU one thread does it all."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image

from tag_perception.ros.channel import Channel
from tag_perception.ros.outputs import LAST, OUTPUTS

from .fakes import TIMEOUT_S, FakeEngine, FakeGpu, make_image, make_info
from .rig import QuickEngine
from .test_channel import SIX, Cameras, cameras  # noqa: F401
from .test_mailbox import wait_for
from .test_node import SUCCESS, values
from .test_requests import publish_pose


class Gate:
    """Holds a camera's outputs up at one topic until it is opened."""

    def __init__(self, channel: Channel, topic: str = 'semantic/image') -> None:
        self.reached, self.go = threading.Event(), threading.Event()
        self.thread = ''
        """Who stands there."""
        self._publish, self._topic = channel._outputs.publish, topic
        channel._outputs.publish = self._hold  # type: ignore[method-assign]

    def _hold(self, topic, message) -> None:
        if topic == self._topic:
            self.thread = threading.current_thread().name
            self.reached.set()
            assert self.go.wait(TIMEOUT_S)
        self._publish(topic, message)


@pytest.fixture
def gates(cameras):  # noqa: F811
    """Opened before the nodes are closed."""
    made: list[Gate] = []

    def build(*arguments) -> Gate:
        made.append(Gate(*arguments))
        return made[-1]

    yield build
    for gate in made:
        gate.go.set()


@pytest.mark.parametrize('engine', [FakeGpu, FakeEngine])
def test_the_next_pass_begins_while_a_frame_is_published_only_on_a_gpu(
    gates,
    cameras,  # noqa: F811
    engine,
):
    one = cameras('front', engine=engine)
    one.start()
    gate = gates(one.node.channels[0], 'depth/image')
    one.send('front', make_image(stamp_ns=1))
    one.until(gate.reached.is_set)
    one.send('front', make_image(stamp_ns=2))
    if engine is FakeGpu:
        one.until(lambda: one.engine.batches == [1, 1])
        one.send('front', make_image(stamp_ns=3))
        assert one.counts('front').under_way == 3
        assert one.engine.batches == [1, 1]
    else:
        assert gate.thread == 'perception'  # the one that would begin it
        assert one.engine.batches == [1]
    gate.go.set()
    one.rest()
    assert one.counts('front').processed == one.counts('front').received


def test_depth_is_published_beside_the_others_and_by_who_need_not_be_woken(gates, cameras):  # noqa: F811
    one = cameras('front', engine=FakeEngine)
    one.start()
    depth, mask = (gates(one.node.channels[0], f'{task}/image') for task in ('depth', 'semantic'))
    one.send('front', make_image())
    one.until(lambda: depth.reached.is_set() and mask.reached.is_set())
    assert depth.thread == 'perception' != mask.thread
    depth.go.set()
    mask.go.set()
    one.rest()
    assert one.counts('front').processed == 1


def test_six_cameras_publish_at_the_same_time(cameras):  # noqa: F811
    six = cameras(*SIX, engine=FakeGpu)
    six.start()
    barrier = threading.Barrier(len(SIX))
    for channel in six.node.channels:
        publish = channel._outputs.publish

        def meet(topic, message, publish=publish) -> None:
            if topic == 'depth/image':
                barrier.wait(TIMEOUT_S)
            publish(topic, message)

        channel._outputs.publish = meet
    for name in SIX:
        six.send(name, make_image())
    six.rest()
    assert [six.counts(name).processed for name in SIX] == [1] * len(SIX)


class InPlace(FakeEngine):
    """Leaves its maps where it was told to."""

    def batch(self, images, cameras, memory=None):  # noqa: F811
        scenes = super().batch(images, cameras, memory)
        if memory is None:
            return scenes
        return [
            replace(
                scene,
                semantic=torch.from_numpy(place.semantic).copy_(scene.semantic),
                depth=torch.from_numpy(place.depth).copy_(scene.depth),
            )
            for scene, place in zip(scenes, memory, strict=True)
        ]


class InPlaceGpu(InPlace):
    device = FakeGpu.device


def test_messages_are_those_of_a_node_that_publishes_before_it_goes_on(cameras):  # noqa: F811
    """On the GPU every depth goes out only when the next image, of another size, is inferred."""
    sizes = ((24, 32), (30, 40), (24, 32), (24, 32), (30, 40))

    def results(engine) -> dict:
        one = cameras('front', engine=engine, target_frame='base_link')
        one.start()
        one.listen(*(output.topic for output in OUTPUTS if output.topic != 'latency'))
        publish_pose(one.client, 'optical')
        one.until(lambda: one.node.transforms._source._parents)
        outputs, passes = one.node.channels[0]._outputs, one.engine.batches
        publish, published = outputs.publish, []

        def publish_late(topic, message) -> None:
            if topic == 'depth/image' and engine is InPlaceGpu:
                published.append(topic)
                wait_for(lambda: len(passes) > len(published) or len(passes) == len(sizes))
            publish(topic, message)

        outputs.publish = publish_late
        for number, size in enumerate(sizes, 1):
            info = make_info(size)
            info.d[0] = -0.1 * number  # a lens of its own
            one.send_info('front', info)
            one.send('front', make_image(size=size, stamp_ns=number, frame_id='optical'))
            one.until(lambda number=number: len(passes) == number)
            if engine is InPlace:
                one.rest()
        one.rest()
        one.until(lambda: all(len(found) == len(sizes) for found in one.received.values()))
        assert set(one.engine.offered) == {engine is InPlace}
        one.node.trigger_deactivate()
        one.node.trigger_cleanup()
        return {topic: [*map(content, found)] for (_, topic), found in one.received.items()}

    def content(message):
        if isinstance(message, Image):
            return message.header, message.encoding, message.step, bytes(message.data)
        return str(message)  # for NaN is not equal to itself

    assert results(InPlaceGpu) == results(InPlace)


def test_a_camera_that_is_held_up_holds_up_no_other_and_goes_on_with_its_newest(
    gates,
    cameras,  # noqa: F811
):
    two = cameras('front', 'left', engine=FakeGpu)
    two.start()
    two.listen('depth/image')
    gate = gates(two.node.channels[0])
    for stamp_ns in range(1, 9):
        for name in ('front', 'left'):
            two.send(name, make_image(stamp_ns=stamp_ns))
        two.until(lambda: not two.counts('left').under_way)
        two.until(lambda n=stamp_ns: two.node.channels[0].input.mailbox.in_hand == min(n, 2))
    assert str(two.counts('left')) == '8 received = 8 processed + 0 superseded + 0 rejected'
    assert str(two.counts('front')) == '8 received = 0 processed + 5 superseded + 0 rejected'
    gate.go.set()
    two.rest()
    two.until(lambda: len(two.received['front', 'depth/image']) == 3)
    stamps = [m.header.stamp.nanosec for m in two.received['front', 'depth/image']]
    assert stamps == [1, 2, 8]


def test_what_fails_while_it_is_published_is_the_error_of_its_camera_alone(cameras):  # noqa: F811
    two = cameras('front', 'left', engine=FakeGpu, stale_after_s=60.0)
    two.start()
    two.listen('depth/image')
    pipeline = two.node.channels[1]._pipeline
    lookup, calls = pipeline._place, []

    def fail_once(*arguments):
        calls.append(arguments)
        if len(calls) == 1:
            raise RuntimeError('no place anywhere')
        return lookup(*arguments)

    pipeline._place = fail_once
    two.together({name: make_image(stamp_ns=5) for name in two.names})  # `left` begins with 1
    assert [two.counts('left').rejected, two.counts('front').rejected] == [1, 0]
    two.until(lambda: two.received['front', 'depth/image'])
    assert values(two.report('/perception/front: input'))['state'] != 'rejected'
    pipeline._place, calls[:] = fail_once, []
    two.send('left', make_image(stamp_ns=6))
    two.rest()
    report = two.report('/perception/left: input')
    assert 'RuntimeError: no place anywhere' in report.message
    assert values(report)['state'] == 'rejected'
    two.send('left', make_image(stamp_ns=7))
    two.rest()
    assert values(two.report('/perception/left: input'))['state'] != 'rejected'
    assert str(two.counts('left')) == '4 received = 2 processed + 0 superseded + 2 rejected'


class Counting(FakeGpu):
    """The n-th pass takes its network n milliseconds, and forgets the pass before."""

    def batch(self, images, cameras, memory=None):  # noqa: F811
        self.stages_ms.clear()
        scenes = super().batch(images, cameras, memory)
        self.stages_ms['network'] = float(len(self.batches))
        return scenes


def test_the_stages_of_a_frame_are_its_own_and_tell_how_long_it_waited(gates, cameras):  # noqa: F811
    one = cameras('front', engine=Counting)
    one.start()
    one.listen('latency')
    gate = gates(one.node.channels[0])
    one.send('front', make_image(stamp_ns=time.time_ns()))
    one.until(gate.reached.is_set)
    one.send('front', make_image(stamp_ns=time.time_ns()))
    one.until(lambda: one.node.channels[0].input.mailbox.in_hand == 2)
    one.until(lambda: len(one.engine.batches) == 2)
    waiting_since_s = time.monotonic()
    time.sleep(0.05)
    waited_ms = 1e3 * (time.monotonic() - waiting_since_s)
    gate.go.set()
    one.until(lambda: len(one.received['front', 'latency']) == 2)
    first, second = (
        {key: float(value) for key, value in values(m.status[0]).items()}
        for m in one.received['front', 'latency']
    )
    assert (first['infer/network_ms'], second['infer/network_ms']) == (1.0, 2.0)
    assert first['handover_ms'] < waited_ms < first['publish_ms']
    assert second['handover_ms'] > waited_ms - 5.0  # its pass may have been at its very end
    for stages in (first, second):
        names = [name for name in stages if '/' not in name]
        assert names[-4:] == ['handover_ms', 'fill_ms', 'publish_ms', 'total_ms']
        total_ms = sum(stages[name] for name in names[:-1])
        assert stages['total_ms'] == pytest.approx(total_ms, abs=0.01)


def test_a_parameter_reaches_the_frames_after_the_one_being_published(gates, cameras):  # noqa: F811
    one = cameras('front', engine=FakeGpu)
    one.start()
    one.listen('detections')
    one.send_info('front', make_info())
    gate = gates(one.node.channels[0], 'detections')
    one.send('front', make_image(stamp_ns=1))
    one.until(gate.reached.is_set)
    (result,) = one.node.set_parameters([Parameter('class_id_format', value='id')])
    assert result.successful
    one.send('front', make_image(stamp_ns=2))
    gate.go.set()
    found = one.received['front', 'detections']
    one.until(lambda: len(found) == 2)
    assert [m.detections[0].results[0].hypothesis.class_id for m in found] == ['car', '13']


def test_going_to_rest_waits_for_every_frame_in_publication(gates, cameras):  # noqa: F811
    two = cameras('front', 'left', engine=FakeGpu)
    two.start()
    two.listen(LAST)
    both = [gates(channel) for channel in two.node.channels]
    for name, gate in zip(two.names, both, strict=True):
        two.send(name, make_image(stamp_ns=1))
        two.until(gate.reached.is_set)
    mailbox = two.node.channels[0].input.mailbox
    two.send('front', make_image(stamp_ns=2))
    two.until(lambda: mailbox.in_hand == 2)
    two.send('front', make_image(stamp_ns=3))

    def go_on() -> None:
        wait_for(lambda: not mailbox.is_open)
        for gate in both:
            gate.go.set()

    threading.Thread(target=go_on).start()
    assert two.node.trigger_deactivate() == SUCCESS
    assert [str(two.counts(name)) for name in two.names] == [
        '3 received = 2 processed + 1 superseded + 0 rejected',
        '1 received = 1 processed + 0 superseded + 0 rejected',
    ]
    assert not any(thread.name.startswith('finish') for thread in threading.enumerate())
    two.until(lambda: len(two.received['front', LAST]) == 2 and two.received['left', LAST])
    assert two.node.trigger_cleanup() == SUCCESS


class QuickGpu(QuickEngine):
    device = FakeGpu.device


def test_every_frame_of_six_hurried_cameras_is_accounted_for_in_its_order(cameras):  # noqa: F811
    six = cameras(*SIX, engine=QuickGpu)
    six.start()
    six.listen('semantic/image', 'depth/image', LAST)
    burning = np.full((24, 32, 3), 66, np.uint8)
    for stamp_ns in range(1, 61):
        for number, name in enumerate(SIX):
            bad = (stamp_ns + number) % 10
            pixels = burning if bad == 0 else None
            image = make_image('nv21' if bad == 5 else 'rgb8', pixels=pixels, stamp_ns=stamp_ns)
            six.images[name].publish(image)
        six.until(lambda n=stamp_ns: all(six.counts(name).received == n for name in SIX))
    six.rest()
    for name in SIX:
        counts = six.counts(name)
        assert counts.rejected >= 6  # on arrival; a burning one may be superseded instead
        for topic in ('semantic/image', 'depth/image', LAST):
            found = six.received[name, topic]
            six.until(lambda found=found, counts=counts: len(found) >= counts.processed)
            stamps = [message.header.stamp.nanosec for message in found]
            assert len(stamps) == counts.processed
            assert stamps == sorted(set(stamps))
