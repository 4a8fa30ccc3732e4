from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from tag_perception.cli import running
from tag_perception.config import InputError
from tag_perception.core import checkpoint
from tag_perception.core.network import NetworkConfig, build_network
from tag_perception.ros import demo
from tag_perception.ros.bag import make_bag, process_bag
from tag_perception.ros.messages import to_camera_info
from tag_perception.ros.process import Stop
from tag_perception.ros.storage import BagReader, BagWriter

from .fakes import FakeEngine, make_image
from .test_bag import Labelled
from .test_film import CAMERA, START_NS, STEP_NS, frames_of

RESULTS = ('detections', 'semantic/image', 'depth/image')


@pytest.fixture(scope='module')
def small(tmp_path_factory):
    """A checkpoint of a network that answers within milliseconds."""
    path = tmp_path_factory.mktemp('models') / 'small.safetensors'
    config = NetworkConfig(width=8, input_size=(64, 128))
    checkpoint.save(path, build_network(config), config, {})
    return path


@pytest.fixture
def folder(tmp_path):
    """Five images with a camera JSON."""
    root = tmp_path / 'images'
    root.mkdir()
    for i in range(5):
        cv2.imwrite(str(root / f'{i:03}.png'), np.full((96, 192, 3), 40 * i, np.uint8))
    extrinsic = dict.fromkeys(('pitch', 'roll', 'x', 'y', 'yaw', 'z'), 0.0) | {'baseline': 0.2}
    intrinsic = {'fx': 200.0, 'fy': 200.0, 'u0': 95.5, 'v0': 47.5}
    calibration = {'extrinsic': extrinsic, 'intrinsic': intrinsic}
    (root / 'camera.json').write_text(json.dumps(calibration))
    return root


def test_a_folder_of_images_goes_through_the_whole_chain(start, folder, small, tmp_path):
    out = tmp_path / 'out'
    process = start(
        *('-m', 'tag_perception', 'demo', '--out', str(out)),
        *('--input', str(folder), '--checkpoint', str(small), '--device', 'cpu'),
    )
    assert process.wait() == 0, process.output
    summary = json.loads((out / 'summary.json').read_text())
    assert summary['frames'] == {
        'sent': 5, 'received': 5, 'processed': 5, 'superseded': 0, 'rejected': 0, 'dropped': 0,
    }  # fmt: skip
    assert summary['trained']
    assert summary['device'] == 'cpu'
    assert str(small) in summary['checkpoint']
    total = summary['latency_ms']['total']
    assert 0 < total['p50'] <= total['p95'] <= total['p99'] < 60_000
    assert {'transport', 'infer/network', 'infer/decode', 'publish'} <= summary[
        'latency_ms'
    ].keys()
    with BagReader(out / 'input.mcap') as source, BagReader(out / 'output.mcap') as recording:
        sent = headers(source, '/image')
        assert len(sent) == 5
        for topic in RESULTS:  # every frame, with its own header
            assert headers(recording, f'/perception/{topic}') == sent
        assert summary['topics'] == recording.counts
    frames, _ = frames_of(out / 'overlay.mp4')
    assert len(frames) == 5
    assert cv2.imread(str(out / 'overlay.png')).shape == frames[0].shape
    for figure in ('sent 5', 'dropped 0', 'p99', str(small)):
        assert figure in process.output


def test_a_bag_with_other_topics_and_without_calibration(start, small, tmp_path):
    bag, out = tmp_path / 'bag', tmp_path / 'out'
    with BagWriter(bag, 'sqlite3') as writer:
        for i in range(4):
            image = make_image('rgb8', (32, 64))
            image.header = header(i)
            writer.write('/front/image_raw', image, START_NS + i * STEP_NS + 777)
    out.mkdir()
    (out / 'output.mcap').write_text('of an earlier run')
    process = start(
        *('-m', 'tag_perception', 'demo', '--out', str(out), '--frames', '3'),
        *('--input', str(bag), '--checkpoint', str(small), '--device', 'cpu'),
    )
    assert process.wait() == 0, process.output
    summary = json.loads((out / 'summary.json').read_text())
    assert summary['frames']['processed'] == summary['frames']['sent'] == 3
    assert '/perception/detections' not in summary['topics']
    assert 'detections withheld: the input has no calibration' in process.output
    with BagReader(out / 'input.mcap') as source, BagReader(out / 'output.mcap') as recording:
        assert headers(recording, '/perception/depth/image') == headers(source, '/front/image_raw')


def test_a_missing_checkpoint_ends_it_with_one_line(start, folder, tmp_path):
    process = start(
        *('-m', 'tag_perception', 'demo', '--out', str(tmp_path / 'out')),
        *('--input', str(folder), '--checkpoint', 'nowhere.safetensors'),
    )
    assert process.wait() == 2
    assert 'Traceback' not in process.output
    (line,) = [x for x in process.output.splitlines() if x.startswith('tag_perception demo:')]
    assert 'nowhere.safetensors' in line


@pytest.mark.parametrize('name', ['foreign.mcap', 'images'])
def test_an_input_that_is_none_leaves_nothing(start, tmp_path, name):
    (tmp_path / 'images').mkdir()
    for path in (tmp_path / 'foreign.mcap', tmp_path / 'images' / 'a.png'):
        path.write_text('neither a bag nor a picture')
    process = start(
        *('-m', 'tag_perception', 'demo', '--out', str(tmp_path / 'new' / 'out')),
        *('--input', str(tmp_path / name)),
    )
    assert process.wait() == 2
    assert 'Traceback' not in process.output
    assert str(tmp_path / name) in process.output.splitlines()[-1]
    assert not (tmp_path / 'new').exists()


def test_what_was_in_the_folder_before_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(demo.session, 'isolate', lambda: None)  # it changes this process
    own = tmp_path / 'out' / 'notes.txt'
    own.parent.mkdir()
    own.write_text('mine')

    def write_nothing(output, stop):
        output.write_text('begun')
        raise InputError('no picture')

    with pytest.raises(InputError, match='no picture'):
        demo.Demo(own.parent, {}).run(write_nothing, None, Stop())
    assert [*own.parent.iterdir()] == [own]


@pytest.mark.parametrize('moment', ['2/4', 'play-bag'])
def test_ctrl_c_leaves_readable_bags(start, folder, tmp_path, moment):
    """With the large network, so that it is in the middle of a frame."""
    out = tmp_path / 'out'
    process = start(
        *('-m', 'tag_perception', 'demo', '--out', str(out), '--input', str(folder)),
        *('--device', 'cpu'),
    )
    process.wait_for(moment)
    process.end()
    for path in (out / 'input.mcap', out / 'output.mcap'):
        if path.exists():
            with BagReader(path) as reader:
                assert sum(1 for _ in reader.messages()) == sum(reader.counts.values())
    assert not (out / 'summary.json').exists()


def test_copying_takes_the_first_images_and_what_belongs_to_them(tmp_path):
    with BagWriter(tmp_path / 'all') as writer:
        for i in range(4):
            stamp_ns = START_NS + i * STEP_NS
            writer.write('/cam/camera_info', to_camera_info(CAMERA, header(i)), stamp_ns)
            writer.write('/cam/image', Image(header=header(i)), stamp_ns)
            writer.write('/other/image', Image(header=header(i)), stamp_ns)
            writer.write('/ground_truth/depth/image', Image(header=header(i)), stamp_ns)
            writer.write('/elsewhere', CameraInfo(), stamp_ns)
    counts = demo.copy_bag(tmp_path / 'all', '/cam/image', 2, tmp_path / 'some.mcap', Stop())
    assert counts['/cam/image'] == 2
    assert counts['/cam/camera_info'] >= 2
    assert counts.keys() == {'/cam/image', '/cam/camera_info', '/ground_truth/depth/image'}
    with BagReader(tmp_path / 'all') as source, BagReader(tmp_path / 'some.mcap') as copy:
        assert headers(copy, '/cam/image') == headers(source, '/cam/image')[:2]


def test_scores_are_for_labelled_inputs_only(tmp_path):
    topics = {'with': '/ground_truth/depth/image', 'without': '/ground_truth/right/camera_info'}
    for name, topic in topics.items():
        message = Image() if topic.endswith('image') else CameraInfo()
        with BagWriter(tmp_path / name) as writer:
            writer.write('/image', Image(header=header(0)), START_NS)
            writer.write(topic, message, START_NS)
    assert demo.labelled(tmp_path / 'with')
    assert not demo.labelled(tmp_path / 'without')


def test_scores_are_those_of_the_recorded_results(tmp_path):
    frames = []
    for i in range(3):
        image = np.full((32, 64, 3), 20 * i + 16, np.uint8)
        truth = FakeEngine()(image, CAMERA)
        depth_m = truth.depth.numpy() + 2
        labels = {'semantic': truth.semantic.numpy(), 'depth': depth_m}
        frames.append(Labelled(START_NS + i * STEP_NS, image, CAMERA, **labels))
    source, results = tmp_path / 'input.mcap', tmp_path / 'output.mcap'
    make_bag(frames, source)
    process_bag(source, results, FakeEngine())
    scores = running._demo_scores(results, source, tmp_path / 'scores')
    assert scores['rmse_m'] == pytest.approx(2, abs=1e-3)
    assert scores['miou'] == pytest.approx(1)
    assert scores['mds_amodal'] is None  # there are no boxes to score against
    assert (tmp_path / 'scores' / 'results.json').exists()


def test_a_recording_of_results_is_no_input(tmp_path):
    with BagWriter(tmp_path / 'results.mcap') as writer:
        writer.write('/perception/depth/image', Image(header=header(0)), START_NS)
    with pytest.raises(InputError, match=r'results\.mcap: /perception/depth/image is what'):
        demo.image_topic(tmp_path / 'results.mcap')


def header(index: int) -> Header:
    result = Header(frame_id='front')
    result.stamp.sec, result.stamp.nanosec = divmod(START_NS + index * STEP_NS, 10**9)
    return result


def headers(reader: BagReader, topic: str) -> list[tuple[int, int, str]]:
    found = [reader.decode(topic, data).header for _, _, data in reader.messages({topic})]
    return [(h.stamp.sec, h.stamp.nanosec, h.frame_id) for h in found]
