from __future__ import annotations

import re
import threading
import time

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import SetParameters, SetParametersAtomically
from rclpy.exceptions import ParameterNotDeclaredException
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo, Image

from tag_perception.config import InputError
from tag_perception.ros.node import PerceptionNode
from tag_perception.ros.outputs import OUTPUTS
from tag_perception.ros.stages import STAGES
from tag_perception.runtime.engine import EngineFailure

from .fakes import FakeEngine, make_image, make_info

ALWAYS = [output.topic for output in OUTPUTS if not output.lazy]
LAZY = [output.topic for output in OUTPUTS if output.lazy]
SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class Bench:
    """The node under test beside a client that plays camera and consumer."""

    def __init__(self, client, spin_until, **parameters) -> None:
        self.engines: list[FakeEngine] = []
        overrides = [Parameter(name.replace('__', '.'), value=v) for name, v in parameters.items()]
        self.node = PerceptionNode(self.build, parameter_overrides=overrides)
        self.client, self._spin_until = client, spin_until
        self.images = client.create_publisher(Image, 'image', 1)
        self.infos = client.create_publisher(CameraInfo, 'camera_info', 1)
        self.received: dict[str, list] = {}

    def build(self, config) -> FakeEngine:
        self.engines.append(FakeEngine(config))
        return self.engines[-1]

    @property
    def engine(self) -> FakeEngine:
        return self.engines[-1]

    @property
    def counts(self):
        return self.node.channels[0].input.mailbox.counts

    def until(self, condition) -> None:
        self._spin_until(condition, self.node, self.client)

    def listen(self, *topics: str) -> None:
        types = {output.topic: output for output in OUTPUTS}
        for topic in topics:
            self.received[topic] = []
            durability = types[topic].qos().durability
            self.client.create_subscription(
                types[topic].type,
                f'perception/{topic}',
                self.received[topic].append,
                QoSProfile(depth=10, durability=durability),
            )
        # Matched in both directions, or the first frame could be missed.
        self.until(
            lambda: (
                all(self.node.count_subscribers(f'/perception/{topic}') for topic in topics)
                and all(self.client.count_publishers(f'/perception/{topic}') for topic in topics)
            )
        )

    def connect(self) -> None:
        self.until(lambda: self.images.get_subscription_count() > 0)
        self.until(lambda: self.infos.get_subscription_count() > 0)

    def send_info(self, info: CameraInfo) -> None:
        self.infos.publish(info)
        self.until(lambda: self.node.channels[0].input.info == info)

    def send(self, image: Image | bytes) -> None:
        """Publish one frame, as it is or serialised, and wait until the node is done with it."""
        before = self.counts.received
        self.images.publish(image)
        self.until(lambda: self.counts.received > before and self.counts.under_way == 0)

    def diagnostics(self, **expected: str) -> dict[str, DiagnosticStatus]:
        """The first message on /diagnostics whose input state is the expected one."""
        latest: list[dict[str, DiagnosticStatus]] = [{}]

        def remember(message: DiagnosticArray) -> None:
            statuses = {s.name.partition(': ')[2]: s for s in message.status}
            latest[0] = statuses
            latest[0]['stamp'] = message.header.stamp

        subscription = self.client.create_subscription(
            DiagnosticArray, '/diagnostics', remember, 1
        )
        self.until(
            lambda: (
                bool(latest[0])
                and all(
                    values(latest[0][name])['state'] == state for name, state in expected.items()
                )
            )
        )
        self.client.destroy_subscription(subscription)
        return latest[0]


def values(status: DiagnosticStatus) -> dict[str, str]:
    return {entry.key: entry.value for entry in status.values}


@pytest.fixture
def bench(client, spin_until):
    benches: list[Bench] = []

    def build(**parameters) -> Bench:
        benches.append(Bench(client, spin_until, **parameters))
        return benches[-1]

    yield build
    for bench in benches:
        for engine in bench.engines:
            engine.go.set()
        bench.node.close()


@pytest.fixture
def active(bench):
    bench = bench()
    bench.node.autostart()
    bench.connect()
    return bench


def test_every_output_carries_the_header_of_its_image_byte_for_byte(active):
    active.listen(*ALWAYS)
    active.send_info(make_info())
    for stamp_ns in (5, 1_700_000_000_123_456_789):
        image = make_image(stamp_ns=stamp_ns, frame_id='front/camera_optical_frame')
        active.send(image)
        active.until(lambda: all(active.received[topic] for topic in ALWAYS))
        for topic in ALWAYS:
            message = active.received[topic].pop()
            assert serialize_message(message.header) == serialize_message(image.header), topic
            for detection in getattr(message, 'detections', []):
                assert detection.header == image.header


def test_outputs_hold_what_the_engine_says(active):
    active.listen(*ALWAYS)
    active.send_info(make_info())
    image = make_image('rgb8')
    active.send(image)
    active.until(lambda: all(active.received[topic] for topic in ALWAYS))
    rgb = np.frombuffer(image.data, np.uint8).reshape(24, 32, 3)
    mask, depth = active.received['semantic/image'][0], active.received['depth/image'][0]
    assert (mask.encoding, mask.step, mask.height, mask.width) == ('mono8', 32, 24, 32)
    np.testing.assert_array_equal(np.array(mask.data).reshape(24, 32), rgb[..., 0] % 19)
    assert (depth.encoding, depth.step, depth.is_bigendian) == ('32FC1', 128, 0)
    metres = np.frombuffer(depth.data, np.float32).reshape(24, 32)
    assert np.isnan(metres[0]).all()
    np.testing.assert_array_equal(metres[1:], rgb[1:].astype(np.float32).sum(2) / 8)
    assert len(active.received['detections'][0].detections) == 2
    for topic in ('semantic/camera_info', 'depth/camera_info'):
        assert list(active.received[topic][0].k) == list(make_info().k)
    info = active.received['vision_info'][0]
    assert 'UNTRAINED' in info.method
    assert active.received['semantic/label_info'][0].class_map[13].class_name == 'car'


def test_labels_reach_a_late_subscriber(active):
    active.send_info(make_info())
    active.send(make_image())
    topics = ['label_info', 'semantic/label_info', 'vision_info']
    active.listen(*topics)
    active.until(lambda: all(active.received[topic] for topic in topics))


def test_lazy_outputs_are_made_only_while_somebody_subscribes(active, monkeypatch):
    from tag_perception.ros import pipeline

    drawn: list[str] = []
    works = 'draw_scene', 'color_semantic', 'color_depth', 'to_markers', 'consistency', 'occupancy'
    for name in works:
        original = getattr(pipeline, name)
        monkeypatch.setattr(
            pipeline,
            name,
            lambda *a, _name=name, _original=original: (drawn.append(_name), _original(*a))[1],
        )
    fill_points = pipeline.PointsMessage.fill
    monkeypatch.setattr(
        pipeline.PointsMessage, 'fill', lambda *a: (drawn.append('points'), fill_points(*a))[1]
    )
    active.send_info(make_info())
    active.send(make_image())
    assert not drawn
    active.listen(*LAZY)
    image = make_image(stamp_ns=99)
    active.send(image)
    active.until(lambda: all(active.received[topic] for topic in LAZY))
    assert sorted(drawn) == sorted([*works, 'points'])
    for topic in LAZY[:3]:
        message = active.received[topic][0]
        assert (message.header, message.encoding) == (image.header, 'rgb8')
        assert (message.height, message.width, message.step) == (24, 32, 96)
    markers = active.received['markers'][0].markers
    assert markers[0].action == markers[0].DELETEALL
    assert {m.ns for m in markers[1:]} == {'edges', 'heading', 'label'}
    assert {m.header.frame_id for m in markers} == {image.header.frame_id}
    assert [m.text for m in markers if m.ns == 'label'] == ['car 33 m', 'bus 33 m']


def test_without_camera_info_only_detections_are_withheld(active):
    active.listen('detections', 'semantic/image', 'depth/image')
    active.send(make_image())
    active.until(lambda: active.received['semantic/image'] and active.received['depth/image'])
    status = active.diagnostics(input='waiting_camera_info')['input']
    assert not active.received['detections']
    assert status.level == DiagnosticStatus.WARN
    assert '/camera_info' in status.message


@pytest.mark.parametrize(
    ('info', 'said'),
    [
        (make_info(size=(480, 640)), 'camera_info is for 640×480, the image is 32×24'),
        (make_info(fx=0.0), 'fx = 0.0'),
        (make_info(fx=float('nan')), 'not finite'),
    ],
    ids=['size', 'fx', 'nan'],
)
def test_unusable_camera_info_withholds_detections_and_says_why(active, info, said):
    active.listen('detections', 'semantic/image', 'depth/camera_info')
    active.infos.publish(info)
    active.until(lambda: active.node.channels[0].input.info is not None)
    active.send(make_image())
    active.until(lambda: active.received['semantic/image'])
    assert not active.received['detections']
    assert not active.received['depth/camera_info']
    assert said in active.diagnostics(input='waiting_camera_info')['input'].message
    active.send_info(make_info())
    active.send(make_image())
    active.until(lambda: active.received['detections'])


def test_bad_frames_are_rejected_counted_and_named_and_the_node_goes_on(active):
    active.listen('depth/image')
    bad = make_image('nv21')
    burning = make_image('rgb8', pixels=np.full((24, 32, 3), 66, np.uint8))
    active.send(bad)
    assert "encoding 'nv21'" in active.diagnostics(input='rejected')['input'].message
    active.send(serialize_message(make_image())[:-1])
    assert 'cut off' in active.diagnostics(input='rejected')['input'].message
    active.send(burning)
    status = active.diagnostics(input='rejected')['input']
    assert 'RuntimeError: the device is on fire' in status.message
    assert status.level == DiagnosticStatus.WARN
    active.send(make_image())
    active.until(lambda: active.received['depth/image'])
    counts = active.counts
    assert (counts.received, counts.processed, counts.rejected) == (4, 1, 3)


def test_the_newest_frame_wins_and_all_are_counted(active):
    active.listen('depth/image')
    active.engine.go.clear()
    for stamp_ns in range(1, 8):
        before = active.counts.received
        active.images.publish(make_image(stamp_ns=stamp_ns))
        active.until(lambda before=before: active.counts.received > before)
        active.until(lambda: active.node.channels[0].input.mailbox._in_hand)
    active.engine.go.set()
    active.until(lambda: active.counts.under_way == 0)
    active.until(lambda: len(active.received['depth/image']) == 2)
    stamps = [m.header.stamp.nanosec for m in active.received['depth/image']]
    assert stamps == [1, 7]
    counts = active.counts
    assert (counts.received, counts.processed, counts.superseded) == (7, 2, 5)


def test_diagnostics_come_without_frames_and_tell_the_whole_truth(bench):
    bench = bench(autostart=False)
    bench.node.autostart()
    statuses = bench.diagnostics(engine='unconfigured', input='inactive')
    assert statuses['engine'].level == DiagnosticStatus.OK
    assert bench.node.trigger_configure() == SUCCESS
    bench.diagnostics(engine='inactive', input='inactive')
    assert bench.node.trigger_activate() == SUCCESS
    status = bench.diagnostics(engine='active', input='waiting_image')
    assert '/image' in status['input'].message
    assert status['input'].level == DiagnosticStatus.WARN
    engine = status['engine']
    assert engine.level == DiagnosticStatus.WARN
    assert 'UNTRAINED' in engine.message
    known = {'device': 'cpu', 'device_name': 'a fake', 'precision': 'fp32', 'trained': 'False'}
    assert known.items() <= values(engine).items()
    assert 'UNTRAINED' in values(engine)['checkpoint']
    assert values(status['frames'])['received'] == '0'


def test_an_engine_that_cannot_go_on_is_an_error_and_its_rebuilds_are_counted(active):
    active.engine.rebuilds, active.engine.problem = 1, 'CUDA error, also after'
    status = active.diagnostics(engine='active')['engine']
    assert status.level == DiagnosticStatus.ERROR
    assert status.message.startswith('CUDA error, also after')
    assert {'rebuilds': '1', 'backend': 'torch'}.items() <= values(status).items()


def test_an_engine_without_memory_is_one_error_and_the_node_survives(bench):
    """As `runtime.engine.Engine` does it: it raises, and says why until a frame succeeds."""
    active = bench(stale_after_s=60.0)
    active.node.autostart()
    active.connect()
    active.send_info(make_info())
    engine, answer = active.engine, active.engine.batch
    active.listen('depth/image')

    def short_of_memory(*_):
        engine.problem = 'not enough GPU memory for one image of 32×24'
        raise EngineFailure(engine.problem)

    engine.batch = short_of_memory
    for stamp_ns in range(2):
        active.send(make_image(stamp_ns=stamp_ns))
    status = active.diagnostics(input='rejected')
    assert status['engine'].level == DiagnosticStatus.ERROR
    assert status['engine'].message.startswith('not enough GPU memory for one image of 32×24')
    errors = [
        name for name, s in status.items() if getattr(s, 'level', None) == DiagnosticStatus.ERROR
    ]
    assert errors == ['engine']
    engine.batch, engine.problem = answer, None
    active.send(make_image(stamp_ns=9))
    active.until(lambda: active.received['depth/image'])
    counts = active.counts
    assert (counts.received, counts.processed, counts.rejected) == (3, 1, 2)
    assert active.diagnostics(input='ok')['engine'].level == DiagnosticStatus.WARN  # UNTRAINED


def test_diagnostics_hold_latency_per_stage_and_notice_a_dead_camera(bench):
    bench = bench(stale_after_s=0.3)
    bench.node.autostart()
    bench.connect()
    bench.send_info(make_info())
    bench.send(make_image(stamp_ns=time.time_ns()))
    status = bench.diagnostics(input='stale')
    messages = [bench.diagnostics(input='stale')['input'].message for _ in range(3)]
    ages_s = [float(re.match(r'no image on /image for (\S+) s', m)[1]) for m in messages]
    assert ages_s == sorted(set(ages_s))  # it keeps ticking
    latency = {key: float(value) for key, value in values(status['latency']).items()}
    assert [key.removesuffix('_p50_ms') for key in latency if key.endswith('_p50_ms')] == [
        *STAGES[:4], 'infer/network', *STAGES[4:], 'total',
    ]  # fmt: skip
    for percent in (50, 95, 99):
        total = sum(latency[f'{stage}_p{percent}_ms'] for stage in STAGES)
        assert latency[f'total_p{percent}_ms'] == pytest.approx(total, abs=0.01)
    assert 0 <= latency['transport_p50_ms'] < 10_000
    assert values(status['frames'])['processed'] == '1'


def test_stamps_of_another_clock_do_not_spoil_the_latency(active):
    active.send_info(make_info())
    active.send(make_image(stamp_ns=5_000_000_000))
    status = active.diagnostics(input='ok')
    assert 'set use_sim_time?' in status['input'].message
    assert 0 <= float(values(status['latency'])['transport_p99_ms']) < 10_000


def test_lifecycle_there_and_back_twice(bench):
    bench = bench(autostart=False)
    for _ in range(2):
        assert bench.node.trigger_configure() == SUCCESS
        assert bench.node.trigger_activate() == SUCCESS
        bench.connect()
        bench.send(make_image())
        assert bench.node.trigger_deactivate() == SUCCESS
        bench.until(lambda: bench.images.get_subscription_count() == 0)
        assert bench.node.trigger_activate() == SUCCESS
        bench.connect()
        bench.send(make_image())
        assert bench.node.trigger_deactivate() == SUCCESS
        assert bench.node.trigger_cleanup() == SUCCESS
        assert bench.node._engine is None
        bench.until(lambda: bench.client.count_publishers('/perception/depth/image') == 0)
    assert len(bench.engines) == 2
    assert (bench.counts.received, bench.counts.processed) == (4, 4)


def test_deactivating_finishes_the_frame_in_hand(active):
    active.engine.go.clear()
    active.images.publish(make_image())
    active.until(lambda: active.node.channels[0].input.mailbox._in_hand)
    active.images.publish(make_image())
    active.until(lambda: active.counts.received == 2)
    threading.Timer(0.2, active.engine.go.set).start()
    assert active.node.trigger_deactivate() == SUCCESS
    assert active.counts.under_way == 0
    assert (active.counts.processed, active.counts.superseded) == (1, 1)


def test_bad_checkpoint_fails_configure_and_can_be_corrected(bench):
    bench = bench(engine__checkpoint='missing')
    bench.node.autostart()
    status = bench.diagnostics(engine='unconfigured')['engine']
    assert status.level == DiagnosticStatus.ERROR
    assert status.message == 'configure failed: checkpoint missing: no such file'
    assert bench.node.trigger_configure() == FAILURE
    bench.node.set_parameters([Parameter('engine.checkpoint', value='random')])
    assert bench.node.trigger_configure() == SUCCESS
    assert bench.node.trigger_activate() == SUCCESS


def test_unexpected_errors_in_configure_are_said_too(bench):
    bench = bench(autostart=False)
    bench.node._build_engine = lambda config: 1 / 0
    assert bench.node.trigger_configure() == FAILURE
    assert 'ZeroDivisionError: division by zero' in bench.node._problem


def test_transitions_by_service(bench, client):
    bench = bench(autostart=False)
    change = client.create_client(ChangeState, '/perception/change_state')
    get = client.create_client(GetState, '/perception/get_state')
    bench.until(lambda: change.service_is_ready() and get.service_is_ready())
    for label, state in (
        ('configure', 'inactive'),
        ('activate', 'active'),
        ('deactivate', 'inactive'),
        ('cleanup', 'unconfigured'),
    ):
        request = ChangeState.Request()
        request.transition.label = label
        done = change.call_async(request)
        bench.until(done.done)
        assert done.result().success
        now = get.call_async(GetState.Request())
        bench.until(now.done)
        assert now.result().current_state.label == state


def test_input_qos_is_best_effort_depth_one_and_outputs_are_reliable(active):
    node = active.node
    (image,) = node.get_subscriptions_info_by_topic('/image')
    assert image.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT
    assert node.get_parameter('qos_overrides./image.subscription.depth').value == 1
    for output in OUTPUTS:
        (found,) = node.get_publishers_info_by_topic(f'/perception/{output.topic}')
        assert found.qos_profile.reliability == ReliabilityPolicy.RELIABLE
        latched = found.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL
        assert latched == output.latched


def test_qos_can_be_overridden_and_a_senseless_override_is_named(bench):
    good = bench(**{'qos_overrides./image.subscription.reliability': 'reliable'})
    good.node.autostart()
    (image,) = good.node.get_subscriptions_info_by_topic('/image')
    assert image.qos_profile.reliability == ReliabilityPolicy.RELIABLE
    good.node.trigger_deactivate()
    bad = bench(**{'qos_overrides./image.subscription.reliability': 'perhaps'})
    bad.node.autostart()
    assert 'activate failed' in bad.node._problem
    assert 'perhaps' in bad.node._problem


def test_live_parameters_reach_the_next_frame(active):
    active.listen('detections')
    active.send_info(make_info())
    (result,) = active.node.set_parameters([Parameter('class_id_format', value='id')])
    assert result.successful
    active.send(make_image())
    active.until(lambda: active.received['detections'])
    (first, _) = active.received['detections'][0].detections
    assert first.results[0].hypothesis.class_id == '13'


@pytest.mark.parametrize(
    ('name', 'value', 'said'),
    [
        ('overlay.semantic_alpha', 2.0, '1.0'),
        ('overlay.depth_near_m', 200.0, 'depth_near_m < depth_far_m'),
        ('class_id_format', 'roman', 'not one of name, id'),
        ('engine.device', 'cpu', 'clean the node up first'),
        ('autostart', False, 'read-only'),
        ('stale_after_s', 'soon', 'type'),
        ('stale_after_s', float('nan'), '0.05, Max: 3600.0'),
    ],
)
def test_senseless_changes_are_refused_with_the_reason(active, name, value, said):
    before = active.node.config
    (result,) = active.node.set_parameters([Parameter(name, value=value)])
    assert not result.successful
    assert said in result.reason
    assert active.node.config == before


def test_unknown_parameters_cannot_be_set(active):
    with pytest.raises(ParameterNotDeclaredException):
        active.node.set_parameters([Parameter('colour', value='red')])


@pytest.mark.parametrize(
    ('name', 'value', 'said'),
    [
        ('min_consistancy', 1, "unknown parameter 'min_consistancy'; did you mean min_consisten"),
        ('zzz', 1, "unknown parameter 'zzz'; known: autostart, cameras, "),
        ('max_rate_hz', 5, 'max_rate_hz is of type double, now 0.0; 5 is of type integer'),
        ('use_sim_time', 'on', "use_sim_time is of type bool, now False; 'on' is of type string"),
        ('image_transport', None, "of type string, now 'raw'; None is of type not_set"),
    ],
)
@pytest.mark.parametrize('service', ['set_parameters', 'set_parameters_atomically'])
def test_services_refuse_by_name_what_they_cannot_take(active, service, name, value, said):
    kind = SetParameters if service == 'set_parameters' else SetParametersAtomically
    asker = active.client.create_client(kind, f'/perception/{service}')
    assert asker.wait_for_service(10)
    changes = [Parameter('stale_after_s', value=2.0), Parameter(name, value=value)]
    messages = [change.to_parameter_msg() for change in changes]
    answer = asker.call_async(kind.Request(parameters=messages))
    active.until(answer.done)
    if service == 'set_parameters':  # one by one
        fine, refused = answer.result().results
        assert fine.successful
    else:  # all or none
        refused = answer.result().result
    assert not refused.successful
    assert said in refused.reason
    expected = 2.0 if service == 'set_parameters' else 1.0
    assert active.node.config.stale_after_s == expected


@pytest.mark.parametrize(
    ('name', 'value', 'said'),
    [
        ('engine__score_threshold', 1.5, '0 … 1'),
        ('engine__score_threshold', 'high', 'engine.score_threshold'),
        ('engine__device', 'tpu', 'auto, cuda, cpu'),
        ('engine__presett', 'tag', 'did you mean engine.preset?'),
        ('zzz', 1, "unknown parameter 'zzz'; known: autostart"),
        ('use_sim_time', 0, "'use_sim_time' to '0' of type 'INTEGER', expecting type 'BOOL'"),
    ],
)
def test_senseless_overrides_stop_the_node_with_one_line(ros, name, value, said):
    override = Parameter(name.replace('__', '.'), value=value)
    with pytest.raises(InputError) as error:
        PerceptionNode(FakeEngine, parameter_overrides=[override])
    assert said in str(error.value)
    assert '\n' not in str(error.value)
