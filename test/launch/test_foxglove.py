"""config/foxglove.json shows what the node publishes, as config/perception.rviz does."""

import json
from pathlib import Path

import pytest
import yaml

pytest.importorskip('rclpy')

from tag_perception.ros.outputs import OUTPUTS

CONFIG = Path(__file__).parents[2] / 'config'
OTHERS = {'/image', '/diagnostics'}


@pytest.fixture(scope='module')
def layout():
    return json.loads((CONFIG / 'foxglove.json').read_text())


def shown(layout) -> set[str]:
    """Topics that some panel shows."""
    topics = set()
    for panel in layout['configById'].values():
        topics |= set(panel.get('topics', {}))
        topics |= {panel[key] for key in ('topicPath', 'topicToRender') if key in panel}
        if 'imageMode' in panel:
            topics.add(panel['imageMode']['imageTopic'])
    return topics


DRAWS = {
    '3D': {'MarkerArray', 'PointCloud2', 'OccupancyGrid'},
    'Image': {'Image'},
    'DiagnosticSummary': {'DiagnosticArray'},
    'RawMessages': None,
}
"""Message types of ours that each panel can show; None: any."""
NEEDS = {
    '3D': {'topics', 'followTf', 'layers'},
    'Image': {'imageMode'},
    'DiagnosticSummary': {
        'topicToRender', 'minLevel', 'pinnedIds', 'hardwareIdFilter', 'sortByLevel',
    },
    'RawMessages': {'topicPath'},
}  # fmt: skip
"""Fields without which a panel shows nothing, or not what is meant."""
TYPES = {
    '/image': 'Image',
    '/diagnostics': 'DiagnosticArray',
    **{f'/perception/{output.topic}': output.type.__name__ for output in OUTPUTS},
}


def test_every_panel_can_show_its_topics(layout):
    for name, panel in layout['configById'].items():
        kind = name.partition('!')[0]
        assert NEEDS[kind] <= set(panel), name
        topics = shown({'configById': {name: panel}})
        assert topics, name
        if DRAWS[kind] is not None:
            assert {TYPES[topic] for topic in topics} <= DRAWS[kind], name
        assert all(topic['visible'] for topic in panel.get('topics', {}).values()), name


def test_the_grid_hides_nothing_that_it_does_not_know(layout):
    grid = layout['configById']['3D!space']['topics']['/perception/obstacles']
    assert (grid['colorMode'], grid['unknownColor'][-2:]) == ('custom', '00')


def leaves(node) -> set[str]:
    return {node} if isinstance(node, str) else leaves(node['first']) | leaves(node['second'])


def test_every_shown_topic_exists(layout):
    assert shown(layout) <= OTHERS | {f'/perception/{output.topic}' for output in OUTPUTS}


def test_it_shows_all_that_rviz_shows(layout):
    document = yaml.safe_load((CONFIG / 'perception.rviz').read_text())
    displays = document['Visualization Manager']['Displays']
    rviz = {'/' + d['Topic']['Value'] for d in displays if 'Topic' in d}
    assert rviz <= shown(layout)
    assert shown(layout) >= {'/perception/points', '/perception/obstacles', '/diagnostics'}


def test_panels_and_arrangement_agree(layout):
    assert leaves(layout['layout']) == set(layout['configById'])
