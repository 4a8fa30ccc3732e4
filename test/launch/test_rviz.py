"""config/perception.rviz shows what the node publishes, under the names it publishes it."""

from pathlib import Path

import pytest
import yaml

pytest.importorskip('rclpy')

from nav_msgs.msg import OccupancyGrid
from sensor_msgs.msg import Image, PointCloud2
from vision_msgs.msg import Detection3DArray
from visualization_msgs.msg import MarkerArray

from tag_perception.ros.outputs import OUTPUTS

ROOT = Path(__file__).parents[2]
SHOWN_TYPES = {
    'rviz_default_plugins/Image': Image,
    'rviz_default_plugins/Map': OccupancyGrid,
    'rviz_default_plugins/MarkerArray': MarkerArray,
    'rviz_default_plugins/PointCloud2': PointCloud2,
    'vision_msgs_rviz_plugins/Detection3DArray': Detection3DArray,
}


@pytest.fixture(scope='module')
def displays():
    config = yaml.safe_load((ROOT / 'config' / 'perception.rviz').read_text())
    return config['Visualization Manager']['Displays']


def test_every_shown_topic_is_an_input_or_output_of_the_node(displays):
    types = {'image': Image} | {f'perception/{o.topic}': o.type for o in OUTPUTS}
    shown = {d['Topic']['Value']: d['Class'] for d in displays if 'Topic' in d}
    assert set(shown) <= set(types)
    assert {topic: SHOWN_TYPES[cls] for topic, cls in shown.items()} == {
        topic: types[topic] for topic in shown
    }
    assert {t.removeprefix('perception/') for t in shown} == {
        'image', 'overlay', 'markers', 'detections', 'semantic/color', 'depth/color', 'points',
        'obstacles',
    }  # fmt: skip


def test_everything_is_switched_on_and_readable_by_a_reliable_publisher(displays):
    assert {'rviz_default_plugins/TF', 'rviz_default_plugins/Grid'} <= {
        d['Class'] for d in displays
    }
    assert all(d['Enabled'] and d['Value'] for d in displays)
    policies = {d['Name']: d['Topic']['Reliability Policy'] for d in displays if 'Topic' in d}
    # A camera may publish best effort, which a reliable subscription would never receive.
    assert policies.pop('Camera image') == 'Best Effort'
    assert set(policies.values()) == {'Reliable'}
    # RViz asks for latched grids by default, which a volatile publisher never serves.
    assert {d['Topic']['Durability Policy'] for d in displays if 'Topic' in d} == {'Volatile'}
