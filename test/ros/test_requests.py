"""What users of perception nodes ask for, held over real DDS: see also test_node.py."""

from __future__ import annotations

import re
import time
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import TransformStamped
from nav_msgs.msg import OccupancyGrid
from rcl_interfaces.srv import DescribeParameters
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from tf2_msgs.msg import TFMessage
from vision_msgs.msg import Detection3DArray

from tag_perception.ros import diagnostics
from tag_perception.ros.frames import STATIC_QOS, NoTransform
from tag_perception.ros.inputs import RateLimit
from tag_perception.ros.stages import STAGES

from .fakes import golden_boxes, make_image, make_info
from .test_node import Bench, values


@pytest.fixture
def bench(client, spin_until):
    benches: list[Bench] = []

    def build(**parameters) -> Bench:
        benches.append(Bench(client, spin_until, **parameters))
        benches[-1].node.autostart()
        return benches[-1]

    yield build
    for bench in benches:
        bench.node.close()


@pytest.fixture
def active(bench):
    bench = bench()
    bench.connect()
    return bench


def compress(image: Image, suffix: str = '.png') -> CompressedImage:
    rgb = np.frombuffer(image.data, np.uint8).reshape(image.height, image.width, 3)
    message = CompressedImage(header=image.header, format=suffix[1:])
    message.data.frombytes(cv2.imencode(suffix, rgb[..., ::-1])[1].tobytes())
    return message


def set_parameters(bench: Bench, **changes) -> list:
    return bench.node.set_parameters(
        [Parameter(name.replace('__', '.'), value=value) for name, value in changes.items()]
    )


def status(bench: Bench, name: str, wanted) -> DiagnosticStatus:
    """What the node says in its report `name`, as soon as `wanted(status)` holds."""
    latest: list[DiagnosticStatus] = []

    def look() -> bool:
        statuses = [r for r in bench.node._reports() if r.name == name]
        latest[:] = statuses
        return bool(statuses) and wanted(statuses[0])

    bench.until(look)
    return latest[0]


def test_png_gives_what_the_raw_image_gives(bench):
    bench = bench(image_transport='compressed')
    images = bench.client.create_publisher(CompressedImage, 'image/compressed', 1)
    bench.until(lambda: images.get_subscription_count() and bench.infos.get_subscription_count())
    bench.listen('semantic/image', 'detections')
    bench.send_info(make_info())
    image = make_image('rgb8')
    images.publish(compress(image))
    bench.until(lambda: bench.received['detections'])
    rgb = np.frombuffer(image.data, np.uint8).reshape(24, 32, 3)
    np.testing.assert_array_equal(bench.engine.images[0], rgb)
    assert bench.received['detections'][0].header == image.header
    broken = compress(image)
    del broken.data[len(broken.data) // 2 :]
    bench.until(lambda: bench.counts.under_way == 0)  # or that frame has the last word
    images.publish(broken)
    bench.until(lambda: bench.counts.rejected == 1)
    found = status(bench, 'input', lambda r: r.values['state'] == 'rejected')
    assert 'cut off' in found.message


def test_a_distorted_camera_is_rectified_and_the_outputs_say_so(active):
    info = make_info()
    info.d = [-0.3, 0.05, 0.0, 0.0, 0.0]
    active.listen('semantic/camera_info', 'detections')
    active.send_info(info)
    image = make_image('rgb8')
    active.send(image)
    active.until(lambda: active.received['semantic/camera_info'])
    found = active.received['semantic/camera_info'][0]
    assert not any(found.d)
    assert list(found.k) == list(info.k)
    rgb = np.frombuffer(image.data, np.uint8).reshape(24, 32, 3)
    k = np.array(info.k).reshape(3, 3)
    expected = cv2.undistort(rgb, k, np.array(info.d))
    assert np.abs(active.engine.images[0].astype(int) - expected).mean() < 1.5
    assert np.abs(active.engine.images[0].astype(int) - rgb).mean() > 1.5


def test_images_that_come_rectified_are_left_alone(active):
    info = make_info()
    info.d = [-0.3, 0.05, 0.0, 0.0, 0.0]
    info.p = [37.0, 0.0, 15.0, 0.0, 0.0, 38.0, 11.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    assert set_parameters(active, rectified_input=True)[0].successful
    active.send_info(info)
    image = make_image('rgb8')
    active.send(image)
    rgb = np.frombuffer(image.data, np.uint8).reshape(24, 32, 3)
    np.testing.assert_array_equal(active.engine.images[0], rgb)
    assert active.engine.cameras[0].fx == 37.0


@pytest.mark.parametrize(
    ('topic', 'distortion', 'told', 'warned'),
    [
        ('/cam/image_rect', -0.3, False, True),
        ('/cam/image_rect_color/compressed', -0.3, False, True),
        ('/cam/image_rect', -0.3, True, False),
        ('/cam/image_rect', 0.0, False, False),
        ('/cam/image_raw', -0.3, False, False),
    ],
)
def test_images_that_sound_rectified_are_not_rectified_in_silence(topic, distortion, told, warned):
    """Drivers publish the raw image's calibration beside the rectified image as well."""
    info = make_info()
    info.d = [distortion, 0.0, 0.0, 0.0, 0.0]
    camera = SimpleNamespace(
        state=lambda stale_after_s: ('ok', 'images come'),
        image_topic=topic, info_topic='/cam/camera_info', info=info,
    )  # fmt: skip
    report = diagnostics.input_report(camera, 1.0, told)
    assert (report.level == DiagnosticStatus.WARN) == warned
    assert ('set rectified_input:=true' in report.message) == warned


def test_an_unknown_lens_withholds_detections_and_says_why(active):
    info = make_info()
    info.distortion_model, info.d = 'kannala_brandt_8', [0.1]
    active.send_info(info)
    active.send(make_image())
    assert active.engine.cameras == [None]
    found = status(active, 'input', lambda r: r.values['state'] == 'waiting_camera_info')
    assert "'kannala_brandt_8' is not one of plumb_bob" in found.message


def publish_pose(client, child: str = 'camera_optical_frame') -> None:
    pose = TransformStamped(child_frame_id=child)
    pose.header.frame_id = 'base_link'
    pose.transform.translation.x, pose.transform.translation.z = 1.7, 1.2
    turn = pose.transform.rotation
    turn.w, turn.x, turn.y, turn.z = 0.5, -0.5, 0.5, -0.5
    publisher = client.create_publisher(TFMessage, '/tf_static', STATIC_QOS)
    publisher.publish(TFMessage(transforms=[pose]))


def knows(bench: Bench, image: Image) -> bool:
    """Whether the node could place the boxes of `image`."""
    try:
        bench.node.transforms._source.lookup(
            'base_link', image.header.frame_id, image.header.stamp
        )
    except NoTransform:
        return False
    return True


def test_boxes_go_to_target_frame_and_keep_their_stamp(bench):
    bench = bench(target_frame='base_link')
    bench.connect()
    bench.listen('detections', 'markers', 'semantic/image')
    bench.send_info(make_info())
    image = make_image()
    bench.send(image)  # nobody has told the pose yet
    bench.until(lambda: bench.received['semantic/image'])
    found = status(bench, 'transform', lambda r: r.values['misses'] == 1)
    assert found.level == DiagnosticStatus.WARN
    assert 'no transform base_link ← camera_optical_frame' in found.message
    assert not bench.received['detections']
    assert not bench.received['markers']

    publish_pose(bench.client)
    bench.until(lambda: knows(bench, image))
    bench.send(image)
    bench.until(lambda: bench.received['detections'] and bench.received['markers'])
    message = bench.received['detections'][0]
    assert message.header.frame_id == 'base_link'
    assert message.header.stamp == image.header.stamp
    boxes = golden_boxes()
    for detection, center in zip(message.detections, boxes.center_cam.tolist(), strict=True):
        at = detection.bbox.center.position
        expected = np.add(center, (1.7, 0.0, 1.2))  # the camera looks ahead
        np.testing.assert_allclose([at.x, at.y, at.z], expected, atol=1e-5)
        assert detection.header == message.header
    turn = message.detections[0].bbox.center.orientation
    # The camera's axes are those of the vehicle, so the box keeps its rotation in C.
    np.testing.assert_allclose(
        [turn.w, turn.x, turn.y, turn.z], boxes.rotation_cam[0].numpy(), atol=1e-6
    )
    covariance = np.array(message.detections[0].results[0].pose.covariance).reshape(6, 6)
    ray = boxes.center_cam[0].double().numpy()
    ray /= np.linalg.norm(ray)
    np.testing.assert_allclose(covariance[:3, :3], 4.0 * np.outer(ray, ray), atol=1e-5)
    assert {m.header.frame_id for m in bench.received['markers'][0].markers} == {'base_link'}
    assert status(bench, 'transform', lambda r: True).level == DiagnosticStatus.OK


def test_points_obstacles_and_consistency_on_demand(active):
    active.listen('points', 'obstacles', 'consistency', 'detections', 'detections_2d')
    active.send_info(make_info())
    image = make_image()
    active.send(image)
    active.until(lambda: all(active.received.values()))
    received = {topic: messages[0] for topic, messages in active.received.items()}
    for topic, message in received.items():
        assert message.header == image.header, topic
    assert (received['points'].width, received['points'].height) == (8, 6)
    grid: OccupancyGrid = received['obstacles']
    assert set(grid.data) <= {-1, 0, 100}
    rated: Detection3DArray = received['consistency']
    scores = [d.results[0].hypothesis.score for d in rated.detections]
    assert len(scores) == len(received['detections'].detections) == 2
    assert len(received['detections_2d'].detections) == 2
    assert all(0 <= score <= 1 for score in scores)
    assert [d.bbox for d in rated.detections] == [
        d.bbox for d in received['detections'].detections
    ]


def test_thresholds_toggles_and_consistency_change_at_run_time(active):
    active.listen('detections', 'semantic/image', 'depth/image')
    active.send_info(make_info())

    def count() -> int:
        active.received['detections'].clear()
        active.send(make_image())
        active.until(lambda: active.received['detections'])
        return len(active.received['detections'][0].detections)

    assert count() == 2
    assert set_parameters(active, score_thresholds__bus=0.5)[0].successful
    assert count() == 1
    assert active.received['detections'][0].detections[0].results[0].hypothesis.class_id == 'car'
    assert set_parameters(active, score_thresholds__bus=0.0)[0].successful
    # The fake's depth has nothing to do with its boxes.
    assert set_parameters(active, min_consistency=0.99)[0].successful
    assert count() == 0
    active.until(lambda: len(active.received['semantic/image']) == 3)
    assert set_parameters(active, outputs__semantic=False)[0].successful
    active.received['semantic/image'].clear()
    assert count() == 0
    assert not active.received['semantic/image']
    assert active.received['depth/image']


def test_rate_and_overlay_style_change_at_run_time(active):
    active.listen('overlay')
    active.send_info(make_info())

    def overlay() -> np.ndarray:
        active.received['overlay'].clear()
        active.send(make_image(stamp_ns=7))
        active.until(lambda: active.received['overlay'])
        return np.array(active.received['overlay'][0].data)

    before = overlay()
    assert set_parameters(active, overlay__semantic_alpha=0.0)[0].successful
    assert (overlay() != before).any()
    assert set_parameters(active, max_rate_hz=0.1)[0].successful
    active.send(make_image())  # from now on one frame in ten seconds
    processed, superseded = active.counts.processed, active.counts.superseded
    for _ in range(3):
        active.send(make_image())
    assert active.counts.superseded >= superseded + 3
    assert set_parameters(active, max_rate_hz=0.0)[0].successful
    active.send(make_image())
    assert active.counts.processed == processed + 1


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        ({'score_thresholds__car': 1.5}, 'range'),
        ({'obstacles__min_height_m': 4.0}, 'min_height_m < max_height_m'),
        ({'image_transport': 'compressed'}, 'takes effect in configure'),
        ({'overlay__depth_near_m': 500.0}, 'depth_near_m'),
    ],
)
def test_bad_changes_are_refused_and_change_nothing(active, change, said):
    before = active.node.config
    results = active.node.set_parameters_atomically(
        [Parameter(name.replace('__', '.'), value=value) for name, value in change.items()]
    )
    assert not results.successful
    assert said in results.reason
    assert active.node.config == before


def test_describe_tells_range_and_unit(active):
    client = active.client.create_client(DescribeParameters, 'perception/describe_parameters')
    active.until(client.service_is_ready)
    names = ['obstacles.ahead_m', 'max_rate_hz', 'points.stride', 'score_thresholds.car']
    future = client.call_async(DescribeParameters.Request(names=names))
    active.until(future.done)
    ahead, rate, stride, car = future.result().descriptors
    assert ahead.description.endswith('metres.')
    assert ahead.floating_point_range[0].to_value == 200.0
    assert 'Hz' in rate.description
    assert stride.integer_range[0].from_value == 1
    assert car.floating_point_range[0].to_value == 1.0


def test_rate_limit_keeps_the_mean_rate():
    limit = RateLimit()
    for hz, expected in ((30.0, 20.0), (100.0, 20.0), (15.0, 15.0)):
        times = 1e3 + np.arange(int(10 * hz)) / hz
        passed = sum(limit.admits(t, 20.0) for t in times)
        assert passed == pytest.approx(10 * expected, abs=2)
        limit = RateLimit()
    assert all(limit.admits(0.0, 0.0) for _ in range(9))


def test_frames_over_the_limit_are_superseded(bench):
    bench = bench(max_rate_hz=0.5)
    bench.connect()
    for stamp_ns in range(1, 6):
        bench.send(make_image(stamp_ns=stamp_ns))
    assert bench.counts.processed == 1
    assert bench.counts.superseded == 4


def test_doctor_names_publisher_policy_and_argument_and_the_argument_helps(bench, client):
    topic = client.resolve_topic_name('image')
    deaf = bench(**{f'qos_overrides.{topic}.subscription.reliability': 'reliable'})
    client.destroy_publisher(deaf.images)
    best_effort = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    images = client.create_publisher(Image, 'image', best_effort)
    found = status(deaf, 'input', lambda r: 'best_effort' in r.message)
    assert found.values['state'] == 'waiting_image'
    assert 'publisher /client offers reliability best_effort' in found.message
    assert 'image_reliability:=best_effort' in found.message  # sets the same: test/launch
    (name, value) = re.search(r'(qos_overrides\S+):=(\S+)', found.message).groups()
    assert name == f'qos_overrides.{topic}.subscription.reliability'
    deaf.node.close()

    cured = bench(**{name: value})
    cured.images = images
    cured.until(lambda: images.get_subscription_count() > 0)
    cured.send(make_image())
    assert cured.counts.processed == 1


@pytest.mark.parametrize(
    ('transport', 'kind', 'topic', 'remedy'),
    [
        ('raw', CompressedImage, 'image/compressed', 'image_transport:=compressed'),
        ('compressed', Image, 'image', 'image_transport:=raw'),
        ('raw', Image, 'cam/image_raw', 'image:=/cam/image_raw'),
        ('compressed', CompressedImage, 'cam/image_raw/compressed', 'image:=/cam/image_raw'),
        (
            'raw',
            CompressedImage,
            'cam/image_raw/compressed',
            'image:=/cam/image_raw image_transport:=compressed',
        ),
        ('compressed', Image, 'cam/image_raw', 'image:=/cam/image_raw image_transport:=raw'),
    ],
)
def test_doctor_points_to_the_topic_next_door(bench, client, transport, kind, topic, remedy):
    bench = bench(image_transport=transport)
    client.destroy_publisher(bench.images)
    client.create_publisher(kind, topic, 1)
    found = status(bench, 'input', lambda r: 'but one of' in r.message)
    assert found.message.endswith(f'no publisher, but one of /{topic}: launch with {remedy}')


def test_doctor_knows_a_publisher_that_is_silent(active):
    found = status(active, 'input', lambda r: 'nothing arrives' in r.message)
    assert 'publisher /client matches' in found.message
    active.send(make_image())
    time.sleep(1.1)  # the input is stale after a second
    found = status(active, 'input', lambda r: r.values['state'] == 'stale')
    assert 'publisher /client matches, but nothing arrives' in found.message
    assert 'its transport loses what is large' in found.message


def test_doctor_tells_a_subscriber_that_asks_for_too_much(active):
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    active.client.create_subscription(
        Detection3DArray, 'perception/detections', lambda message: None, latched
    )
    found = status(active, 'outputs', lambda r: r.values['problems'] == 1)
    assert 'subscriber /client of /perception/detections asks for durability' in found.message


def test_latency_of_every_frame_is_published(active):
    active.listen('latency')
    image = make_image()
    active.send(image)
    active.until(lambda: active.received['latency'])
    message = active.received['latency'][0]
    assert message.header == image.header
    stages = {key: float(value) for key, value in values(message.status[0]).items()}
    expected = [*STAGES[:4], 'infer/network', *STAGES[4:], 'total']
    assert list(stages) == [f'{name}_ms' for name in expected]
    total = sum(stages[f'{name}_ms'] for name in STAGES)
    assert stages['total_ms'] == pytest.approx(total, abs=0.02)  # each is rounded
