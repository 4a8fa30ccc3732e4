"""config/perception_node.schema.json says what the dataclasses say."""

from __future__ import annotations

import json

import jsonschema
import pytest
import yaml

pytest.importorskip('rclpy')

from tag_perception.ros.parameters import RANGES, schema
from tag_perception.share import shared_file

REMEDY = 'write it anew: python -m tag_perception schema > config/perception_node.schema.json'


def leaves(node: dict, prefix: str = '') -> dict[str, dict]:
    found = {}
    for name, entry in node['properties'].items():
        if 'properties' in entry:
            found.update(leaves(entry, f'{prefix}{name}.'))
        else:
            found[prefix + name] = entry
    return found


def parameters() -> dict[str, dict]:
    root = schema()['additionalProperties']['properties']['ros__parameters']
    return leaves(root)


def test_shipped_schema_is_the_generated_one():
    text = shared_file('config', 'perception_node.schema.json').read_text()
    assert json.loads(text) == json.loads(json.dumps(schema())), REMEDY


def test_every_parameter_has_type_default_and_description():
    for name, entry in parameters().items():
        assert set(entry) >= {'type', 'default', 'description'}, name
        assert entry['description'], name


def test_ranges_and_choices_are_those_of_the_node():
    found = parameters()
    assert {n: (e['minimum'], e['maximum']) for n, e in found.items() if 'minimum' in e} == RANGES
    assert found['image_transport']['enum'] == ['raw', 'compressed']
    for entry in found.values():
        assert entry['default'] in entry.get('enum', [entry['default']])


def test_shipped_parameter_file_satisfies_it():
    document = yaml.safe_load(shared_file('config', 'perception_node.yaml').read_text())
    jsonschema.validate(document, schema())
    document['/**']['ros__parameters']['points']['stride'] = 0
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, schema())
