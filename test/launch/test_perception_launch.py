"""What perception.launch.py starts. Needs the launch packages of a ROS installation."""

import itertools
import json
import sys
from pathlib import Path

import pytest
import yaml

pytest.importorskip('launch_ros')
pytest.importorskip('ros2launch')

from ament_index_python.packages import get_packages_with_prefixes

from tag_perception.config import flatten
from tag_perception.ros.transport import environment

ROOT = Path(__file__).parents[2]
FILE = 'perception.launch.py'


def started(ros2_launch, *arguments):
    """How each process was started: {executable: record}."""
    finished = ros2_launch(FILE, *arguments)
    assert finished.returncode == 0, finished.stdout
    records = [json.loads(line) for line in ros2_launch.record.read_text().splitlines()]
    return {Path(record['argv'][0]).name: record for record in records}


def values_after(argv, flag):
    return [b for a, b in itertools.pairwise(argv) if a == flag]


def overrides(argv):
    """Parameters of all files after the first one, which is params_file."""
    merged = {}
    for path in values_after(argv, '--params-file')[1:]:
        text = Path(path).read_text().replace('!!python/tuple', '')  # so launch writes lists
        for node in yaml.safe_load(text).values():
            merged |= flatten(node['ros__parameters'])
    return merged


def test_without_arguments_every_parameter_comes_from_the_yaml(ros2_launch):
    (node,) = started(ros2_launch).values()
    files = values_after(node['argv'], '--params-file')
    assert Path(files[0]).resolve() == ROOT / 'config' / 'perception_node.yaml'
    assert overrides(node['argv']) == {}
    names = values_after(node['argv'], '-r')
    assert '__node:=perception' in names
    assert not any(name.startswith('__ns:=/') and len(name) > 7 for name in names)


def test_the_processes_get_the_transport_for_large_images(ros2_launch):
    wanted = environment({})
    for process in started(ros2_launch, 'rviz:=true').values():
        got = process['environ']
        assert set(wanted) <= set(got)
        assert got['MALLOC_MMAP_THRESHOLD_'] == wanted['MALLOC_MMAP_THRESHOLD_']


def test_given_arguments_overrule_the_yaml_and_nothing_else_does(ros2_launch, tmp_path):
    own = tmp_path / 'own.yaml'
    own.write_text('/**: {ros__parameters: {stale_after_s: 9.0}}')
    (node,) = started(
        ros2_launch,
        f'params_file:={own}',
        'device:=cpu',
        'checkpoint:=net.safetensors',
        'use_sim_time:=true',
    ).values()
    assert values_after(node['argv'], '--params-file')[0] == str(own)
    assert overrides(node['argv']) == {
        'engine.device': 'cpu',
        'engine.checkpoint': 'net.safetensors',
        'use_sim_time': True,
    }


def test_qos_and_outputs_can_be_set_where_the_doctor_says(ros2_launch):
    (node,) = started(
        ros2_launch,
        'image:=cam/image_raw',
        'namespace:=front',
        'image_transport:=compressed',
        'image_reliability:=reliable',
        'camera_info_reliability:=best_effort',
        'target_frame:=base_link',
        'score_threshold:=0.0',
    ).values()
    reliability = 'subscription.reliability'
    assert overrides(node['argv']) == {
        'image_transport': 'compressed',
        'target_frame': 'base_link',
        'engine.score_threshold': 0.0,
        f'qos_overrides./front/cam/image_raw/compressed.{reliability}': 'reliable',
        f'qos_overrides./front/cam/camera_info.{reliability}': 'best_effort',
    }


def test_node_and_rviz_share_namespace_and_topics(ros2_launch):
    both = started(ros2_launch, 'rviz:=true', 'namespace:=front', 'image:=/cam/image_raw')
    assert set(both) == {'perception_node', 'rviz2'}
    for process in both.values():
        rules = values_after(process['argv'], '-r')
        assert '__ns:=/front' in rules
        assert 'image:=/cam/image_raw' in rules
        assert 'camera_info:=/cam/camera_info' in rules  # beside the image
    config = values_after(both['rviz2']['argv'], '-d')[0]
    assert Path(config).resolve() == ROOT / 'config' / 'perception.rviz'


def test_camera_info_can_be_elsewhere(ros2_launch):
    (node,) = started(ros2_launch, 'camera_info:=/calibration').values()
    assert 'camera_info:=/calibration' in values_after(node['argv'], '-r')


def test_several_cameras_have_their_topics_below_their_names(ros2_launch):
    both = started(
        ros2_launch,
        'cameras:=front, left',
        'image:=image_rect',
        'namespace:=car',
        'image_reliability:=reliable',
        'rviz:=true',
    )
    node = both['perception_node']
    rules = values_after(node['argv'], '-r')
    assert {rule for rule in rules if not rule.startswith('__')} == {
        'front/image:=front/image_rect',
        'front/camera_info:=front/camera_info',
        'left/image:=left/image_rect',
        'left/camera_info:=left/camera_info',
    }
    assert overrides(node['argv']) == {
        'cameras': ['front', 'left'],
        'qos_overrides./car/front/image_rect.subscription.reliability': 'reliable',
        'qos_overrides./car/left/image_rect.subscription.reliability': 'reliable',
    }
    shown = values_after(both['rviz2']['argv'], '-r')
    assert 'perception/overlay:=perception/front/overlay' in shown
    assert 'image:=front/image_rect' in shown


def test_one_absolute_topic_for_several_cameras_is_refused(ros2_launch):
    finished = ros2_launch(FILE, 'cameras:=front,left', 'image:=/camera/image_rect')
    assert finished.returncode != 0
    assert 'must be a name below each camera' in finished.stdout
    assert not ros2_launch.record.exists()


# A node that is killed when it first starts, and waits for Ctrl-C from then on.
KILLED_ONCE = """#!{python}
import os, signal, sys
signal.signal(signal.SIGINT, lambda *_: sys.exit(0))
try:
    os.mkdir({mark!r})
except FileExistsError:
    print('started again', flush=True)
    signal.pause()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_node_is_started_again(ros2_launch, tmp_path):
    node = KILLED_ONCE.format(python=sys.executable, mark=str(tmp_path / 'killed'))
    finished = ros2_launch(FILE, 'respawn:=true', node=node, interrupt_at='started again')
    assert finished.returncode == 0, finished.stdout
    assert 'exit code -9' in finished.stdout
    assert 'started again' in finished.stdout


def test_a_wrong_choice_is_named(ros2_launch):
    finished = ros2_launch(FILE, 'device:=gpu')
    assert finished.returncode != 0
    assert 'device' in finished.stdout
    assert 'cuda' in finished.stdout
    assert not ros2_launch.record.exists()


def test_a_missing_parameter_file_is_named(ros2_launch):
    finished = ros2_launch(FILE, 'params_file:=/nowhere.yaml')
    assert finished.returncode != 0
    assert 'there is no file /nowhere.yaml' in finished.stdout
    assert not ros2_launch.record.exists()


def test_a_threshold_that_is_no_number_is_named(ros2_launch):
    finished = ros2_launch(FILE, 'score_threshold:=low')
    assert finished.returncode != 0
    assert "score_threshold: 'low' is not a number" in finished.stdout
    assert not ros2_launch.record.exists()


def test_without_rviz_nothing_starts_that_would_be_left_behind(ros2_launch):
    if 'rviz2' in get_packages_with_prefixes():
        pytest.skip('RViz is installed')
    finished = ros2_launch(FILE, 'rviz:=true', rviz=False)
    assert finished.returncode != 0
    assert 'rviz:=true needs the package rviz2' in finished.stdout
    assert not ros2_launch.record.exists()
