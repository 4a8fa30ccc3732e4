"""Several cameras in one node."""

from __future__ import annotations

import threading
import time

import cv2
import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from tag_perception.config import InputError
from tag_perception.ros import transport
from tag_perception.ros.bag import process_bag
from tag_perception.ros.node import PerceptionNode
from tag_perception.ros.outputs import OUTPUTS
from tag_perception.ros.parameters import PerceptionConfig
from tag_perception.ros.player import Playback, play_bag
from tag_perception.ros.process import Stop
from tag_perception.ros.recorder import record_bag
from tag_perception.ros.storage import BagWriter

from .fakes import FakeEngine, make_image, make_info
from .rig import QuickEngine
from .test_node import SUCCESS, values
from .test_requests import publish_pose

ALWAYS = [output for output in OUTPUTS if not output.lazy]
SIX = ('front', 'left', 'right', 'rear', 'side_left', 'side_right')


class Cameras:
    """A node with several cameras, beside a client that plays all of them and consumes."""

    def __init__(self, client, spin_until, names, engine=FakeEngine, **parameters) -> None:
        parameters = {'cameras': list(names), **parameters}
        overrides = [Parameter(name.replace('__', '.'), value=v) for name, v in parameters.items()]
        self.node = PerceptionNode(engine, parameter_overrides=overrides)
        self.client, self._spin_until = client, spin_until
        self.names = names
        self.images = {n: client.create_publisher(Image, f'{n}/image', 1) for n in names}
        self.infos = {n: client.create_publisher(CameraInfo, f'{n}/camera_info', 1) for n in names}
        self.received: dict[tuple[str, str], list] = {}
        self.reports: dict[str, DiagnosticStatus] = {}
        client.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)

    @property
    def engine(self) -> FakeEngine:
        return self.node._engine

    def counts(self, name: str):
        return self.node.channels[self.names.index(name)].input.mailbox.counts

    def start(self) -> None:
        self.node.autostart()
        for publisher in (*self.images.values(), *self.infos.values()):
            self.until(lambda publisher=publisher: publisher.get_subscription_count() > 0)

    def until(self, condition) -> None:
        self._spin_until(condition, self.node, self.client)

    def listen(self, *topics: str, names=()) -> None:
        for name in names or self.names:
            for output in OUTPUTS:
                if output.topic in topics:
                    self._subscribe(name, output)

    def _subscribe(self, name: str, output) -> None:
        topic, key = f'/perception/{name}/{output.topic}', (name, output.topic)
        self.received[key] = []
        qos = QoSProfile(depth=200, durability=output.qos().durability)
        self.client.create_subscription(output.type, topic, self.received[key].append, qos)
        self.until(lambda: self.node.count_subscribers(topic))
        self.until(lambda: self.client.count_publishers(topic))

    def send_info(self, name: str, info: CameraInfo) -> None:
        channel = self.node.channels[self.names.index(name)]
        self.infos[name].publish(info)
        self.until(lambda: channel.input.info == info)

    def send(self, name: str, image: Image) -> None:
        before = self.counts(name).received
        self.images[name].publish(image)
        self.until(lambda: self.counts(name).received > before)

    def together(self, images: dict[str, Image]) -> None:
        """Let one frame of each camera wait for the engine at the same moment."""
        first = self.names[-1]
        before = len(self.engine.batches)
        self.engine.go.clear()
        self.send(first, make_image(stamp_ns=1))
        self.until(lambda: len(self.engine.batches) > before)
        for name, image in images.items():
            self.send(name, image)
        self.engine.go.set()
        self.rest()

    def rest(self) -> None:
        self.until(lambda: not any(self.counts(name).under_way for name in self.names))
        for name in self.names:
            counts = self.counts(name)
            assert counts.received == counts.processed + counts.superseded + counts.rejected

    def report(self, name: str, condition=lambda status: True) -> DiagnosticStatus:
        """The first fresh report of that name for which the condition holds."""
        self.reports.clear()
        self.until(lambda: name in self.reports and condition(self.reports[name]))
        return self.reports[name]

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        self.reports.update({status.name: status for status in message.status})


@pytest.fixture
def cameras(client, spin_until):
    made: list[Cameras] = []

    def build(*names: str, **options) -> Cameras:
        made.append(Cameras(client, spin_until, names, **options))
        return made[-1]

    yield build
    for one in made:
        if one.node._engine is not None:
            one.node._engine.go.set()
        one.node.close()


def test_each_camera_gets_its_own_results_under_its_own_header(cameras):
    two = cameras('front', 'left')
    two.start()
    two.listen(*(output.topic for output in ALWAYS))
    two.send_info('front', make_info())
    two.send_info('left', make_info(size=(40, 48), fx=77.0))
    images = {
        'front': make_image('rgb8', stamp_ns=1_700_000_000_123_456_789, frame_id='front_optical'),
        'left': make_image('rgb8', size=(40, 48), stamp_ns=5, frame_id='left_optical'),
    }
    for name, image in images.items():
        two.send(name, image)
    two.rest()
    two.until(lambda: all(two.received.values()))
    for (name, topic), messages in two.received.items():
        (message,) = messages
        header = serialize_message(images[name].header)
        assert serialize_message(message.header) == header, topic
    for name, image in images.items():
        pixels = np.frombuffer(image.data, np.uint8).reshape(image.height, image.width, 3)
        (mask,) = two.received[name, 'semantic/image']
        found = np.array(mask.data).reshape(mask.height, mask.width)
        np.testing.assert_array_equal(found, pixels[..., 0] % 19)
        assert len(two.received[name, 'detections'][0].detections) == 2
    assert two.received['left', 'depth/camera_info'][0].k[0] == 77.0
    assert two.received['front', 'depth/camera_info'][0].k[0] == 40.0
    own = {topic for topic, _ in two.node.get_publisher_names_and_types_by_node('perception', '/')}
    assert not own & {f'/perception/{output.topic}' for output in OUTPUTS}


def test_six_cameras_that_wait_together_share_a_pass_and_the_newest_frames_win(cameras):
    six = cameras(*SIX)
    six.start()
    six.listen('depth/image')
    six.engine.go.clear()
    six.send('rear', make_image(stamp_ns=1))
    six.until(lambda: six.engine.batches)
    for stamp_ns in (2, 3, 4):
        for name in SIX:
            six.send(name, make_image(stamp_ns=stamp_ns))
    six.engine.go.set()
    six.rest()
    assert six.engine.batches == [1, 6]
    for name in SIX:
        six.until(lambda name=name: six.received[name, 'depth/image'][-1:])
        stamps = [m.header.stamp.nanosec for m in six.received[name, 'depth/image']]
        assert stamps == ([1, 4] if name == 'rear' else [4])
        assert six.counts(name).superseded == 2
        counts = values(six.report(f'/perception/{name}: frames'))
        assert (counts['received'], counts['rejected']) == (str(len(stamps) + 2), '0')


def test_a_limited_batch_serves_first_who_waits_longest(cameras, monkeypatch):
    class Small(FakeEngine):
        largest_batch = 2

    populated: list[int] = []
    monkeypatch.setattr(transport, 'populate', populated.append)
    six = cameras(*SIX, engine=Small)
    six.start()
    assert six.engine.prepared_for == 6
    height, width = six.engine.status.network.input_size
    assert populated == [6 * height * width]
    six.together({name: make_image(stamp_ns=3 + i) for i, name in enumerate(SIX)})
    assert six.engine.batches == [1, 2, 2, 2]
    first = np.frombuffer(make_image(stamp_ns=1).data, np.uint8)
    assert six.engine.images[0][..., ::-1].tobytes() == first.tobytes()
    order = [image[..., ::-1].tobytes() for image in six.engine.images[1:]]
    assert order == [bytes(make_image(stamp_ns=3 + i).data) for i in range(6)]


class Slow(QuickEngine):
    """A tenth of a second for a pass of one image."""

    largest_batch, inference_s = 1, 0.1


def test_a_slow_camera_does_not_starve_beside_a_fast_one(cameras):
    two = cameras('fast', 'slow', engine=Slow)
    two.start()
    two.listen('depth/image')
    begin_s, sent = time.monotonic(), {'fast': 0, 'slow': 0}
    rates_hz = {'fast': 60.0, 'slow': 2.0}

    def play() -> bool:
        elapsed_s = time.monotonic() - begin_s
        for name, rate_hz in rates_hz.items():
            if sent[name] < elapsed_s * rate_hz and elapsed_s < 3.0:
                sent[name] += 1
                two.images[name].publish(make_image(stamp_ns=time.time_ns()))
        return elapsed_s > 3.0

    two.until(play)
    two.rest()
    fast, slow = two.counts('fast'), two.counts('slow')
    assert fast.superseded > fast.processed > 10
    assert slow.processed >= 5
    assert slow.processed == slow.received  # there is always a turn before its next frame
    two.until(lambda: len(two.received['slow', 'depth/image']) == slow.processed)


def test_bad_frames_cost_no_other_camera_anything(cameras):
    six = cameras(*SIX, stale_after_s=60.0)
    six.start()
    six.listen('depth/image')
    burning = make_image('rgb8', pixels=np.full((24, 32, 3), 66, np.uint8), stamp_ns=9)
    images = {name: make_image(stamp_ns=9) for name in SIX}
    images |= {'front': make_image('nv21', stamp_ns=9), 'left': burning}
    six.together(images)
    assert six.engine.batches == [1, 5, 1, 1, 1, 1, 1]  # the pass with the bad frame, then singly
    for name in SIX:
        bad = name in ('front', 'left')
        assert six.counts(name).rejected == bad
        if not bad:
            found = six.received[name, 'depth/image']
            six.until(lambda found=found: found and found[-1].header.stamp.nanosec == 9)
    assert 'nv21' in six.report('/perception/front: input').message
    assert 'the device is on fire' in six.report('/perception/left: input').message
    assert values(six.report('/perception/left: input'))['state'] == 'rejected'
    six.send('left', make_image(stamp_ns=10))
    six.until(lambda: six.received['left', 'depth/image'])


def test_a_frame_that_cannot_be_converted_leaves_the_pass_before_it_begins(cameras):
    """A damaged JPEG passes the check on arrival, and fails in the worker."""
    two = cameras('front', 'left', image_transport='compressed', stale_after_s=60.0)
    jpegs = {
        name: two.client.create_publisher(CompressedImage, f'{name}/image/compressed', 1)
        for name in ('front', 'left')
    }
    two.node.autostart()
    for publisher in jpegs.values():
        two.until(lambda publisher=publisher: publisher.get_subscription_count() > 0)
    two.listen('semantic/image')
    good = cv2.imencode('.png', np.zeros((24, 32, 3), np.uint8))[1].tobytes()
    for name, data in (('front', good[:60] + good[-12:]), ('left', good)):
        message = CompressedImage(format='png')
        message.data.frombytes(data)
        jpegs[name].publish(message)
    two.until(lambda: two.received['left', 'semantic/image'] and two.counts('front').rejected)
    two.rest()
    assert two.counts('left').processed == 1
    assert 'is damaged' in two.report('/perception/front: input').message


def test_only_the_camera_without_calibration_goes_without_boxes(cameras):
    two = cameras('front', 'left', stale_after_s=60.0)
    two.start()
    two.listen('detections', 'depth/image')
    two.send_info('front', make_info())
    two.together({name: make_image(stamp_ns=7) for name in ('front', 'left')})
    two.until(lambda: two.received['front', 'detections'] and two.received['left', 'depth/image'])
    assert not two.received['left', 'detections']
    left = two.report('/perception/left: input')
    assert values(left)['state'] == 'waiting_camera_info'
    assert left.level == DiagnosticStatus.WARN
    assert '/left/camera_info: no detections; no publisher' not in left.message  # we are one
    assert values(two.report('/perception/front: input'))['state'] == 'ok'
    assert two.engine.cameras[-2:].count(None) == 1


def test_a_silent_camera_is_named_with_its_remedy_and_not_sent_to_its_neighbour(cameras):
    two = cameras('front', 'left')
    two.start()
    two.client.destroy_publisher(two.images['front'])
    gone = two.report('/perception/front: input', lambda s: 'no publisher' in s.message)
    assert gone.message == 'no image on /front/image yet; no publisher'
    elsewhere = two.client.create_publisher(Image, '/elsewhere/image', 1)
    hint = 'no publisher, but one of /elsewhere/image: remap front/image to /elsewhere/image'
    two.report('/perception/front: input', lambda s: hint in s.message)
    two.client.destroy_publisher(elsewhere)


def test_time_spent_on_other_cameras_is_part_of_the_latency(cameras):
    class Passes(FakeEngine):
        def batch(self, images, cameras, memory=None):
            time.sleep(0.03)
            return super().batch(images, cameras, memory)

    two = cameras('front', 'left', engine=Passes)
    two.start()
    two.listen('latency')
    two.together({name: make_image(stamp_ns=time.time_ns()) for name in ('front', 'left')})
    two.until(
        lambda: two.received['front', 'latency'] and len(two.received['left', 'latency']) == 2
    )
    _, shared = (values(m.status[0]) for m in two.received['left', 'latency'])
    stages = {key: float(value) for key, value in shared.items() if '/' not in key}
    total_ms = stages.pop('total_ms')
    assert stages['batch_ms'] > 25.0  # the engine claims 1 ms of the 30 ms of its pass
    assert total_ms == pytest.approx(sum(stages.values()), abs=0.01)


def test_lazy_outputs_live_parameters_and_target_frame_reach_each_camera(cameras):
    two = cameras('front', 'left', target_frame='base_link')
    two.start()
    two.listen('detections')
    two.listen('overlay', names=['left'])
    publish_pose(two.client, 'front_optical')
    two.until(lambda: two.node.transforms._source._parents)
    (result,) = two.node.set_parameters([Parameter('class_id_format', value='id')])
    assert result.successful
    for name in two.names:
        two.send_info(name, make_info())
        two.send(name, make_image(frame_id=f'{name}_optical'))
    two.rest()
    two.until(lambda: two.received['front', 'detections'] and two.received['left', 'overlay'])
    boxes = two.received['front', 'detections'][0]
    assert boxes.header.frame_id == 'base_link'
    assert boxes.detections[0].results[0].hypothesis.class_id == '13'
    assert not two.received['left', 'detections']
    assert values(two.report('/perception/front: transform'))['misses'] == '0'
    missed = two.report('/perception/left: transform')
    assert missed.level == DiagnosticStatus.WARN
    assert 'no transform base_link ← left_optical' in missed.message


def test_each_camera_has_its_own_rectification(cameras):
    two = cameras('front', 'left')
    two.start()
    for name, bend in (('front', -0.2), ('left', 0.1)):
        info = make_info()
        info.d = [bend, 0.0, 0.0, 0.0, 0.0]
        two.send_info(name, info)
    kept = []
    for stamp_ns in (1, 2):
        for name in two.names:
            two.send(name, make_image(stamp_ns=stamp_ns))
            two.rest()
        kept.append([c._pipeline._calibration._rectifier for c in two.node.channels])
    assert None not in kept[0]
    assert kept[0] == kept[1]


def test_tools_take_a_camera_for_a_node(cameras, tmp_path):
    """A bag in lockstep with one camera, whose results are recorded meanwhile."""
    with BagWriter(tmp_path / 'in.mcap') as writer:
        for stamp_ns in (1, 2, 3):
            writer.write('/left/camera_info', make_info(), stamp_ns)
            writer.write('/left/image', make_image(stamp_ns=stamp_ns), stamp_ns)
    two = cameras('front', 'left')
    two.start()
    one, nodes, stop = '/perception/left', [rclpy.create_node(n) for n in 'ab'], Stop()
    ready, counts, played = threading.Event(), {}, []
    recording = threading.Thread(
        target=lambda: counts.update(
            record_bag(
                tmp_path / 'out.mcap',
                nodes[0],
                perception=one,
                on_ready=lambda n: ready.set(),
                stop=stop,
            )
        )
    )
    playing = threading.Thread(
        target=lambda: played.append(
            play_bag(tmp_path / 'in.mcap', nodes[1], Playback(rate=50, lockstep=one))
        )
    )
    recording.start()
    two.until(ready.is_set)
    playing.start()
    two.until(lambda: not playing.is_alive())
    stop.set()
    recording.join()
    assert played[0].unanswered == 0
    assert two.counts('left').processed == counts[f'{one}/depth/image'] == 3
    assert two.counts('front').received == 0
    for node in nodes:
        node.destroy_node()


def test_deactivate_and_cleanup_leave_nothing_of_any_camera(cameras):
    two = cameras('front', 'left')
    two.start()
    two.engine.go.clear()
    two.send('front', make_image())
    two.until(lambda: two.engine.batches)
    for name in two.names:
        two.send(name, make_image())
    threading.Timer(0.2, two.engine.go.set).start()
    assert two.node.trigger_deactivate() == SUCCESS
    assert [str(two.counts(name)) for name in two.names] == [
        '2 received = 1 processed + 1 superseded + 0 rejected',
        '1 received = 0 processed + 1 superseded + 0 rejected',
    ]
    for publisher in two.images.values():
        two.until(lambda publisher=publisher: publisher.get_subscription_count() == 0)
    assert two.node.trigger_cleanup() == SUCCESS
    for name in two.names:
        topic = f'/perception/{name}/depth/image'
        two.until(lambda topic=topic: two.client.count_publishers(topic) == 0)


@pytest.mark.parametrize(
    ('names', 'said'),
    [
        (['front', 'front'], "cameras: 'front' stands there twice"),
        (['front', ''], "cameras: '' cannot be part of a topic"),
        (['2nd'], "cameras: '2nd' cannot"),
        (['a/b'], "cameras: 'a/b' cannot"),
        (['~'], "cameras: '~' cannot"),
        (['front left'], "cameras: 'front left' cannot"),
        (['a__b'], "cameras: 'a__b' cannot"),
        (['vorn_ü'], "cameras: 'vorn_ü' cannot"),
        ('front', 'parameter cameras: '),
        ([1, 2], 'parameter cameras: '),
    ],
)
def test_senseless_names_are_refused_in_one_line(ros, names, said):
    with pytest.raises(InputError) as error:
        PerceptionNode(FakeEngine, parameter_overrides=[Parameter('cameras', value=names)])
    assert said in str(error.value)
    assert '\n' not in str(error.value)


def test_cameras_change_between_cleanup_and_configure_only(cameras):
    node = cameras('front', 'left').node
    node.autostart()
    (refused,) = node.set_parameters([Parameter('cameras', value=['rear'])])
    assert 'clean the node up first' in refused.reason
    assert node.trigger_deactivate() == node.trigger_cleanup() == SUCCESS
    (wrong,) = node.set_parameters([Parameter('cameras', value=['rear', 'rear'])])
    assert "'rear' stands there twice" in wrong.reason
    (result,) = node.set_parameters([Parameter('cameras', value=['rear'])])
    assert result.successful
    assert node.trigger_configure() == node.trigger_activate() == SUCCESS
    assert [channel.input.image_topic for channel in node.channels] == ['/rear/image']


def test_a_bag_is_processed_one_camera_at_a_time(tmp_path):
    config = PerceptionConfig(cameras=('front', 'left'))
    with pytest.raises(InputError, match='one camera at a time'):
        process_bag(tmp_path / 'in.mcap', tmp_path / 'out.mcap', FakeEngine(), config)


def test_batched_messages_are_those_of_single_calls(cameras):
    """The same frames, once alone in a node each and once in a shared pass."""
    images = {name: make_image(stamp_ns=20 + i) for i, name in enumerate(SIX)}
    topics = ('detections', 'detections_2d', 'semantic/image', 'depth/image', 'label_info')

    def content(message):
        if isinstance(message, Image):  # its depth may be NaN, which is not equal to itself
            return message.header, message.encoding, message.step, bytes(message.data)
        return message

    def results(together: bool) -> dict:
        six = cameras(*SIX)
        six.start()
        six.listen(*topics)
        for name in SIX:
            six.send_info(name, make_info())
        if together:
            six.together(images)
        else:
            for name, image in images.items():
                six.send(name, image)
                six.rest()
        six.until(
            lambda: all(m and m[-1].header.stamp.nanosec >= 20 for m in six.received.values())
        )
        assert six.engine.batches == ([1, 6] if together else [1] * 6)
        six.node.trigger_deactivate()
        six.node.trigger_cleanup()
        return {key: content(found[-1]) for key, found in six.received.items()}

    assert results(together=True) == results(together=False)
