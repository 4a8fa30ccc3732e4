"""What replay.launch.py does with a bag. Needs the launch packages of a ROS installation."""

import importlib.util
import sys
from pathlib import Path

import pytest

pytest.importorskip('launch_ros')
pytest.importorskip('ros2launch')

from sensor_msgs.msg import Image

from tag_perception.ros.storage import BagWriter

FILE = 'replay.launch.py'

# A lifecycle node that takes its time to become active and tells what time it has then.
NODE = f"""#!{sys.executable}
import time
import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import Image

rclpy.init()
node = LifecycleNode('perception')
node.create_subscription(
    Image, 'image', lambda image: print('image', image.header.stamp.sec, flush=True), 10
)
time.sleep(2)
node.trigger_configure()
print('simulated', node.get_parameter('use_sim_time').value, flush=True)
print('activating', flush=True)
node.trigger_activate()
try:
    rclpy.spin(node)
except (KeyboardInterrupt, ExternalShutdownException):
    pass
"""


@pytest.fixture
def bag(tmp_path):
    path = tmp_path / 'short.mcap'
    with BagWriter(path) as writer:
        for i in range(30):
            image = Image()
            image.header.stamp.sec = 100 + i
            writer.write('/image', image, (1000 + i) * 100_000_000)
    return path


def test_the_bag_starts_when_the_node_is_active_and_ends_the_launch(ros2_launch, bag):
    finished = ros2_launch(FILE, f'bag:={bag}', node=NODE, timeout_s=90)
    output = finished.stdout
    assert finished.returncode == 0, output.replace('\r', '\n')
    assert 'simulated True' in output
    assert output.index('activating') < output.index('[player-3]: process started')
    assert 'image 129' in output, output.replace('\r', '\n')
    assert output.count('] image 1') >= 15  # discovery may cost the first ones
    assert '30  /image' in output


@pytest.mark.parametrize('moment', ['activating', '] image 1'])
def test_ctrl_c_ends_a_replay_in_good_order(ros2_launch, bag, moment):
    arguments = f'bag:={bag}', 'loop:=true'
    finished = ros2_launch(FILE, *arguments, node=NODE, interrupt_at=moment, timeout_s=90)
    assert finished.returncode == 0, finished.stdout.replace('\r', '\n')
    assert 'Caught exception' not in finished.stdout


def test_no_bag_is_an_error_at_once(ros2_launch):
    finished = ros2_launch(FILE, node=NODE)
    assert finished.returncode != 0
    assert 'bag' in finished.stdout
    assert 'activating' not in finished.stdout


@pytest.fixture
def replay():
    path = Path(__file__).parents[2] / 'launch' / FILE
    spec = importlib.util.spec_from_file_location('replay_launch', path)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            'ament_index_python.packages.get_package_share_directory', lambda _: str(path.parent)
        )
        spec.loader.exec_module(module)
    return module


def test_rosbag2_plays_where_it_is_installed(replay):
    rosbag2 = {'ros2bag', 'rosbag2_transport', 'rosbag2_storage_mcap'}
    command = replay.player_command('a.mcap', '0.5', True, None, rosbag2 | {'rclpy'})
    assert command[:3] == ['ros2', 'bag', 'play']
    assert command[3:6] == ['a.mcap', '--storage', 'mcap']
    assert command[6:] == ['--delay', '1.0', '--clock', '--rate', '0.5', '--loop']
    assert replay.player_command('folder', '1.0', False, None, rosbag2)[3:] == [
        'folder', '--delay', '1.0', '--clock', '--rate', '1.0',
    ]  # fmt: skip
    for missing in rosbag2:
        command = replay.player_command('a.mcap', '1.0', False, None, rosbag2 - {missing})
        assert command[:5] == [sys.executable, '-m', 'tag_perception', 'play-bag', 'a.mcap']


def test_scores_need_every_frame_so_the_player_waits_for_the_node(replay):
    rosbag2 = {'ros2bag', 'rosbag2_transport', 'rosbag2_storage_mcap'}
    command = replay.player_command('a.mcap', '1.0', False, '/front/perception', rosbag2)
    assert command[:5] == [sys.executable, '-m', 'tag_perception', 'play-bag', 'a.mcap']
    assert command[-2:] == ['--lockstep', '/front/perception']


def test_scores_of_an_endless_replay_are_refused(ros2_launch, bag):
    finished = ros2_launch(FILE, f'bag:={bag}', 'score:=true', 'loop:=true', node=NODE)
    assert finished.returncode != 0
    assert 'leave loop:=true out' in finished.stdout
