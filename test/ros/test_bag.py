from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from rclpy.serialization import deserialize_message, serialize_message
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_typestore
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import String

from tag_perception.config import InputError
from tag_perception.core.structures import Camera
from tag_perception.ros.bag import make_bag, process_bag
from tag_perception.ros.mailbox import Counts
from tag_perception.ros.node import PerceptionNode
from tag_perception.ros.outputs import OUTPUTS
from tag_perception.ros.process import Stop
from tag_perception.ros.storage import BagReader, BagWriter, message_class, typestore

from .fakes import FakeEngine, golden_boxes, make_image, make_info

ALWAYS = [output for output in OUTPUTS if not output.lazy]


@dataclass(frozen=True)
class Labelled:
    """A frame as make_bag wants it."""

    stamp_ns: int
    image: np.ndarray
    camera: Camera | None = None
    semantic: np.ndarray | None = None
    depth: np.ndarray | None = None
    detection3d: Any = None
    ignore_px: np.ndarray | None = None
    annotation: str | None = None


def camera_T_vehicle() -> np.ndarray:
    """The golden sensor of the dataset's reference: its pose in V is the inverse."""
    pitch, yaw = 0.038, -0.0195
    rz = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    ry = np.array(
        [[np.cos(pitch), 0, np.sin(pitch)], [0, 1, 0], [-np.sin(pitch), 0, np.cos(pitch)]]
    )
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rz @ ry, (1.7, 0.1, 1.22)
    return np.linalg.inv(pose)


CAMERA = Camera(32, 24, 35.0, 35.5, 16.0, 12.0, camera_T_vehicle=camera_T_vehicle())


def frames(count: int = 3, camera: Camera | None = CAMERA, labels: bool = True) -> list[Labelled]:
    noise = np.random.default_rng(7)
    made = []
    for index in range(count):
        made.append(
            Labelled(
                stamp_ns=10**18 + index * 58_823_529,
                image=noise.integers(0, 60, (24, 32, 3), np.uint8),
                camera=camera,
                semantic=noise.integers(0, 19, (24, 32), np.uint8) if labels else None,
                depth=noise.random((24, 32), np.float32) if labels else None,
                detection3d=golden_boxes() if labels else None,
                ignore_px=np.array([[2, 4, 10, 8]], np.float32) if labels else None,
            )
        )
    return made


def read(path: Path) -> dict[str, list]:
    """Everything in a bag by topic, deserialized by rosbags and not by rclpy."""
    store = typestore('vision_msgs/msg/Detection3DArray')
    found: dict[str, list] = {}
    with Reader(path) as reader:
        for connection, stamp_ns, data in reader.messages(reader.connections):
            message = store.deserialize_cdr(data, connection.msgtype)
            found.setdefault(connection.topic, []).append((stamp_ns, message))
    return found


def test_made_bag_holds_images_calibration_and_labels(tmp_path):
    counts = make_bag(frames(), tmp_path / 'in.mcap')
    assert (tmp_path / 'in.mcap').is_file()
    assert list(tmp_path.iterdir()) == [tmp_path / 'in.mcap']
    found = read(tmp_path / 'in.mcap')
    assert counts == {topic: len(messages) for topic, messages in found.items()}
    assert counts == {
        '/tf_static': 1, '/camera_info': 3, '/image': 3, '/ground_truth/detections': 3,
        '/ground_truth/ignored': 3, '/ground_truth/semantic/image': 3,
        '/ground_truth/depth/image': 3,
    }  # fmt: skip
    for index, frame in enumerate(frames()):
        for topic in counts.keys() - {'/tf_static'}:
            stamp_ns, message = found[topic][index]
            stamp = message.header.stamp
            assert stamp_ns == frame.stamp_ns == stamp.sec * 10**9 + stamp.nanosec
            assert message.header.frame_id == 'camera_optical_frame'
        image = found['/image'][index][1]
        assert image.encoding == 'bgr8'
        np.testing.assert_array_equal(image.data.reshape(24, 32, 3)[..., ::-1], frame.image)
        mask = found['/ground_truth/semantic/image'][index][1].data.reshape(24, 32)
        np.testing.assert_array_equal(mask, frame.semantic)
        depth = found['/ground_truth/depth/image'][index][1].data.view(np.float32).reshape(24, 32)
        np.testing.assert_array_equal(depth, frame.depth)
    info = found['/camera_info'][0][1]
    assert (info.k[0], info.k[4], info.k[2], info.k[5]) == (35.0, 35.5, 16.0, 12.0)
    boxes = found['/ground_truth/detections'][0][1].detections
    assert [box.results[0].hypothesis.class_id for box in boxes] == ['car', 'bus']
    (region,) = found['/ground_truth/ignored'][0][1].detections
    center = region.bbox.center.position
    assert (center.x, center.y, region.bbox.size_x, region.bbox.size_y) == (6, 6, 8, 4)


def test_tf_leads_from_the_vehicle_to_the_optical_frame(tmp_path):
    other = replace(CAMERA, camera_T_vehicle=np.eye(4))
    make_bag([*frames(2), *frames(1, other)], tmp_path / 'in.mcap')
    messages = read(tmp_path / 'in.mcap')['/tf_static']
    assert len(messages) == 2  # once per calibration
    poses = {t.child_frame_id: t for t in messages[0][1].transforms}
    optical, camera = poses['camera_optical_frame'], poses['camera_link']
    assert (optical.header.frame_id, camera.header.frame_id) == ('camera_link', 'base_link')
    turn = optical.transform.rotation
    np.testing.assert_allclose([turn.x, turn.y, turn.z, turn.w], [-0.5, 0.5, -0.5, 0.5])
    place = camera.transform.translation
    np.testing.assert_allclose([place.x, place.y, place.z], [1.7, 0.1, 1.22])
    # The golden box: centre in S → centre in V.
    point = torch.tensor([-5.57789, -0.57177, 32.14884], dtype=torch.float64).numpy()
    for transform in (optical.transform, camera.transform):
        point = rotate(transform.rotation, point) + np.array(
            [transform.translation.x, transform.translation.y, transform.translation.z]
        )
    np.testing.assert_allclose(point, [33.95, 5.05, 0.57], atol=2e-3)


def rotate(turn, point: np.ndarray) -> np.ndarray:
    axis = np.array([turn.x, turn.y, turn.z])
    return point + 2 * np.cross(axis, np.cross(axis, point) + turn.w * point)


def test_folder_bags_in_both_formats_and_images_without_calibration(tmp_path):
    for storage in ('mcap', 'sqlite3'):
        path = tmp_path / storage
        counts = make_bag(frames(2, None, False), path, storage=storage, encoding='rgb8')
        assert counts == {'/image': 2}
        assert (path / 'metadata.yaml').is_file()
        with AnyReader([path], default_typestore=get_typestore(Stores.ROS2_HUMBLE)) as reader:
            ((_, _, data), *_) = reader.messages()
            image = reader.deserialize(data, 'sensor_msgs/msg/Image')
        assert image.encoding == 'rgb8'
        np.testing.assert_array_equal(image.data.reshape(24, 32, 3), frames(1)[0].image)


def test_node_and_process_bag_publish_the_same_messages(tmp_path, client, spin_until):
    make_bag(frames(), tmp_path / 'in.mcap')
    counts = process_bag(tmp_path / 'in.mcap', tmp_path / 'out.mcap', FakeEngine())
    assert counts == Counts(received=3, processed=3)
    with BagReader(tmp_path / 'out.mcap') as reader:
        assert all(n == 3 for n in reader.counts.values())
        offline = {topic: [] for topic in reader.topics}
        for topic, _, data in reader.messages():
            offline[topic].append(data)
        assert reader.latched('/perception/label_info')
        assert not reader.latched('/perception/depth/image')
    assert set(offline) == {f'/perception/{output.topic}' for output in ALWAYS}

    override = Parameter('autostart', value=True)
    node = PerceptionNode(FakeEngine, parameter_overrides=[override])
    node.autostart()
    online: dict[str, list[bytes]] = {topic: [] for topic in offline}
    for output in ALWAYS:
        topic = f'/perception/{output.topic}'
        client.create_subscription(output.type, topic, online[topic].append, 10, raw=True)
    images = client.create_publisher(Image, 'image', 1)
    infos = client.create_publisher(CameraInfo, 'camera_info', QoSProfile(depth=1))
    publishers = {'/image': images, '/camera_info': infos}
    nodes = node, client
    spin_until(lambda: all(p.get_subscription_count() for p in publishers.values()), *nodes)
    spin_until(lambda: all(node.count_subscribers(topic) for topic in online), *nodes)
    with BagReader(tmp_path / 'in.mcap') as reader:
        for done, (topic, _, data) in enumerate(reader.messages({'/image', '/camera_info'})):
            publishers[topic].publish(data)
            if topic == '/camera_info':
                info = reader.decode(topic, data)
                spin_until(lambda info=info: node.channels[0].input.info == info, *nodes)
            else:
                n = done // 2 + 1
                spin_until(lambda n=n: all(len(got) == n for got in online.values()), *nodes)
    node.close()
    # Decoded, because the gaps that alignment leaves in serialized messages hold anything.
    for output in ALWAYS:
        topic = f'/perception/{output.topic}'
        for ours, theirs in zip(online[topic], offline[topic], strict=True):
            decoded = [deserialize_message(data, output.type) for data in (ours, theirs)]
            if output.topic == 'latency':  # two runs, two times
                decoded = [message.header for message in decoded]
            assert decoded[0] == decoded[1], topic


def test_lazy_outputs_and_another_node_name_on_request(tmp_path):
    make_bag(frames(1), tmp_path / 'in.mcap')
    process_bag(
        tmp_path / 'in.mcap', tmp_path / 'out.mcap', FakeEngine(), lazy=True, node='/front/eye'
    )
    with BagReader(tmp_path / 'out.mcap') as reader:
        assert set(reader.topics) == {f'/front/eye/{output.topic}' for output in OUTPUTS}


def test_frames_before_the_first_camera_info_get_it_and_bad_ones_are_counted(tmp_path, capsys):
    with BagWriter(tmp_path / 'in') as writer:
        writer.write('/cam/image', make_image(stamp_ns=1), 1)
        writer.write('/cam/image', make_image('nv21', stamp_ns=2), 2)
        writer.write('/cam/camera_info', make_info(), 3)
        writer.write('/other', String(data='x'), 4)
    counts = process_bag(tmp_path / 'in', tmp_path / 'out', FakeEngine())
    assert counts == Counts(received=2, processed=1, rejected=1)
    assert "frame 2 rejected: encoding 'nv21'" in capsys.readouterr().err
    with BagReader(tmp_path / 'out') as reader:
        assert reader.counts['/perception/detections'] == 1


def test_an_output_that_exists_is_never_overwritten(tmp_path):
    path = tmp_path / 'in.mcap'
    path.write_text('precious')
    with pytest.raises(InputError, match='exists already'):
        make_bag(frames(1), path)
    assert path.read_text() == 'precious'
    with pytest.raises(InputError, match='a sqlite3 bag is a folder'):
        make_bag(frames(1), tmp_path / 'other.mcap', storage='sqlite3')
    with pytest.raises(InputError, match='cannot be written'):
        make_bag(frames(1), path / 'below_a_file')


def test_an_unfinished_bag_is_closed_when_frames_fail_or_stop(tmp_path):
    def failing():
        yield from frames(2)
        raise InputError('frame 3 is broken')

    with pytest.raises(InputError, match='frame 3'):
        make_bag(failing(), tmp_path / 'failed.mcap')
    stop = Stop()

    def stopping():
        for index, frame in enumerate(frames(9)):
            if index == 4:
                stop.set()
            yield frame

    assert make_bag(stopping(), tmp_path / 'stopped', stop=stop)['/image'] == 4
    with BagReader(tmp_path / 'failed.mcap') as reader:
        assert reader.counts['/image'] == 2
    with BagReader(tmp_path / 'stopped') as reader:
        assert reader.counts['/image'] == 4


def test_a_bag_can_be_closed_from_another_thread_while_work_goes_on(tmp_path):
    writer = BagWriter(tmp_path / 'bag.mcap')
    writer.write('/x', String(data='1'), 1)
    closing = threading.Thread(target=writer.close)
    closing.start()
    closing.join()
    writer.write('/x', String(data='2'), 2)
    writer.close()
    with BagReader(tmp_path / 'bag.mcap') as reader:
        assert reader.counts == {'/x': 1}


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
@pytest.mark.parametrize('keep', [0, 5, 100, 0.3, 0.8])
def test_cut_off_bags_are_named_and_their_results_stay_readable(tmp_path, storage, keep):
    make_bag(frames(30), tmp_path / 'in', storage=storage)
    (data,) = [p for p in (tmp_path / 'in').iterdir() if p.suffix != '.yaml']
    content = data.read_bytes()
    data.write_bytes(content[: keep if isinstance(keep, int) else int(keep * len(content))])
    with pytest.raises(InputError) as error:
        process_bag(tmp_path / 'in', tmp_path / 'out', FakeEngine())
    assert str(tmp_path / 'in') in str(error.value)
    assert 'damaged, cut off or no bag' in str(error.value)
    assert '\n' not in str(error.value)
    if (tmp_path / 'out').exists():
        with BagReader(tmp_path / 'out') as reader:
            list(reader.messages())


def test_foreign_files_are_named(tmp_path):
    (tmp_path / 'folder').mkdir()
    (tmp_path / 'text.mcap').write_text('this is no bag')
    (tmp_path / 'rosbag1.bag').write_bytes(b'#ROSBAG V2.0\n')
    for name in ('missing', 'folder', 'text.mcap', 'rosbag1.bag'):
        with pytest.raises(InputError, match=name):
            BagReader(tmp_path / name)


def test_a_bag_without_the_wanted_images_lists_what_it_has(tmp_path):
    with BagWriter(tmp_path / 'in') as writer:
        writer.write('/a', String(), 1)
    with pytest.raises(InputError, match=r'no topic of type sensor_msgs/msg/Image.*/a \(std_msgs'):
        process_bag(tmp_path / 'in', tmp_path / 'out', FakeEngine())
    with BagWriter(tmp_path / 'two') as writer:
        writer.write('/left/image', make_image(), 1)
        writer.write('/right/image', make_image(), 1)
    with pytest.raises(InputError, match='more than one topic'):
        process_bag(tmp_path / 'two', tmp_path / 'out2', FakeEngine())
    counts = process_bag(
        tmp_path / 'two', tmp_path / 'out3', FakeEngine(), image_topic='/left/image'
    )
    assert counts.processed == 1


def test_message_bytes_that_are_none_are_named(tmp_path):
    with BagWriter(tmp_path / 'in') as writer:
        writer.write_bytes('/image', 'sensor_msgs/msg/Image', b'\0\1\0\0rubbish', 1)
    with pytest.raises(InputError, match='/image holds no valid sensor_msgs/msg/Image'):
        process_bag(tmp_path / 'in', tmp_path / 'out', FakeEngine())


def test_definitions_of_our_messages_have_the_public_type_hashes():
    kind = 'vision_msgs/msg/Detection3DArray'
    assert typestore(kind).hash_rihs01(kind) == (
        'RIHS01_793f5eab9595ac1c0da07873cc859db42eae51f0ee76056db8562515d830e018'
    )
    assert message_class(kind).__name__ == 'Detection3DArray'
    with pytest.raises(InputError, match='no_such_msgs/msg/Thing is not installed'):
        message_class('no_such_msgs/msg/Thing')


def test_serialization_of_both_libraries_agrees():
    image = make_image()
    store = typestore('sensor_msgs/msg/Image')
    theirs = store.deserialize_cdr(serialize_message(image), 'sensor_msgs/msg/Image')
    assert bytes(theirs.data) == bytes(image.data)
