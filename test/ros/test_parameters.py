from __future__ import annotations

import pytest
import yaml

from tag_perception import config
from tag_perception.ros import parameters
from tag_perception.ros.parameters import RANGES, PerceptionConfig, descriptor
from tag_perception.share import shared_file

DEFAULTS = config.flatten(config.to_dict(PerceptionConfig()))


def test_shipped_yaml_lists_every_parameter_with_its_default():
    document = yaml.safe_load(shared_file('config', 'perception_node.yaml').read_text())
    assert config.flatten(document['/**']['ros__parameters']) == DEFAULTS


@pytest.mark.parametrize('name', DEFAULTS)
def test_every_parameter_describes_itself(name):
    found = descriptor(name)
    assert found.description.endswith('.') or found.description.endswith('1.'), name
    numeric = isinstance(DEFAULTS[name], (int, float)) and not isinstance(DEFAULTS[name], bool)
    assert bool(found.floating_point_range or found.integer_range) == numeric
    assert (name in RANGES) == numeric


def test_descriptors_hold_ranges_and_choices():
    threshold = descriptor('engine.score_threshold')
    (limits,) = threshold.floating_point_range
    assert (limits.from_value, limits.to_value) == (0.0, 1.0)
    assert 'fixed while the node is configured' in threshold.additional_constraints
    assert 'one of auto, cuda, cpu' in descriptor('engine.device').additional_constraints
    assert descriptor('autostart').read_only
    assert not descriptor('class_id_format').read_only


def test_values_round_trip_through_dotted_names():
    assert parameters.from_values(DEFAULTS) == PerceptionConfig()
    changed = parameters.from_values({**DEFAULTS, 'overlay.depth_far_m': 80.0})
    assert changed.overlay.depth_far_m == 80.0
