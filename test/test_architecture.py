"""The house holds: who may import whom, where ROS may appear, how messages are filled."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / 'tag_perception'

ARROWS = {
    '__main__': {'entry'},
    'entry': {'cli', 'ros'},
    'config': set(),
    'share': {'config'},
    'core': {'config'},
    'data': {'config', 'core'},
    'overlay': {'config', 'core'},
    'learn': {'config', 'core', 'data'},
    'evaluate': {'config', 'core', 'data', 'overlay'},
    'runtime': {'config', 'core', 'share'},
    'ros': {'config', 'core', 'overlay', 'runtime', 'share'},
    'cli': {'config', 'entry'},  # and everything, inside functions
}
"""Part of the package → the parts it may import."""

CORE_LIBRARIES = {'numpy', 'safetensors', 'torch'}
"""All that core may import besides the standard library: it runs where there is nothing else."""

ROS = re.compile(
    r'(rcl\w+|rosidl\w*|rosbag\w*|ament\w*|launch\w*|\w+_(msgs|interfaces)|cv_bridge)$'
)

FILES = {'/'.join(path.relative_to(PACKAGE).parts): path for path in sorted(PACKAGE.rglob('*.py'))}
"""Every module of the package by its name below it."""


def imports(tree: ast.AST) -> Iterator[str]:
    """Dotted names of all modules imported anywhere below a node; relative ones raise."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f'line {node.lineno}: write the whole name of the module'
            yield from (f'{node.module}.{alias.name}' for alias in node.names)


def parts(names: Iterator[str]) -> set[str]:
    """The parts of this package among dotted names."""
    split = (name.split('.') for name in names)
    return {words[1] for words in split if words[0] == 'tag_perception' and len(words) > 1}


def part_of(name: str) -> str:
    return name.split('/')[0].removesuffix('.py')


@cache
def parse(name: str) -> ast.Module:
    return ast.parse(FILES[name].read_text(), name)


@pytest.mark.parametrize('name', FILES)
def test_imports_follow_the_arrows(name: str) -> None:
    part = part_of(name)
    if part == '__init__':
        assert not parts(imports(parse(name))), (
            'importing the package must import none of its parts'
        )
        return
    assert part in ARROWS, f'{part} has no place in the house: give it one in ARROWS'
    tree = parse(name)
    if part == 'cli':
        outside = [node for node in tree.body if not isinstance(node, ast.FunctionDef)]
        tree = ast.Module(body=outside, type_ignores=[])
    used = parts(imports(tree)) - {part}
    assert used <= ARROWS[part], f'{name} may import {sorted(ARROWS[part])} only'


@pytest.mark.parametrize('name', [name for name in FILES if part_of(name) != 'ros'])
def test_ros_appears_under_ros_only(name: str) -> None:
    used = {words.split('.')[0] for words in imports(parse(name))}
    assert not {module for module in used if ROS.fullmatch(module)}


@pytest.mark.parametrize('name', [name for name in FILES if part_of(name) == 'core'])
def test_core_needs_torch_and_numpy_only(name: str) -> None:
    used = {words.split('.')[0] for words in imports(parse(name))}
    assert used <= CORE_LIBRARIES | {'tag_perception'} | sys.stdlib_module_names


@pytest.mark.parametrize('name', [name for name in FILES if part_of(name) == 'cli'])
def test_heavy_libraries_wait_for_their_verb(name: str) -> None:
    outside = [node for node in parse(name).body if not isinstance(node, ast.FunctionDef)]
    used = {words.split('.')[0] for node in outside for words in imports(node)}
    assert not used & {'torch', 'numpy', 'cv2', 'yaml', 'rclpy', 'lightning', 'rosbags'}


def slow_assignments(tree: ast.AST) -> list[int]:
    """Lines that assign to an attribute `data`, or hand a message its data when it is made.

    The setter of a message checks an array element by element, a quarter of a second for one
    image; the buffer it already has is to be filled instead.
    """
    lines = []
    for node in ast.walk(tree):
        targets = getattr(node, 'targets', None) or [getattr(node, 'target', None)]
        if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign):
            flat = [leaf for target in targets for leaf in getattr(target, 'elts', [target])]
            if any(isinstance(leaf, ast.Attribute) and leaf.attr == 'data' for leaf in flat):
                lines.append(node.lineno)
        elif isinstance(node, ast.Call):
            made = node.func.attr if isinstance(node.func, ast.Attribute) else ''
            made = node.func.id if isinstance(node.func, ast.Name) else made
            given = {keyword.arg for keyword in node.keywords}
            if made in ('Image', 'CompressedImage') and 'data' in given:
                lines.append(node.lineno)
            if made == 'setattr' and getattr(node.args[1], 'value', None) == 'data':
                lines.append(node.lineno)
    return lines


@pytest.mark.parametrize('name', [name for name in FILES if part_of(name) == 'ros'])
def test_no_array_is_assigned_to_message_data(name: str) -> None:
    assert slow_assignments(parse(name)) == []


@pytest.mark.parametrize(
    'source',
    [
        'message.data = array',
        'message.data += array',
        'message.header, message.data = header, array',
        'self.image.data: bytes = array',
        'Image(height=2, data=array)',
        'msg.Image(data=array)',
        'setattr(message, "data", array)',
    ],
)
def test_every_way_to_assign_data_is_seen(source: str) -> None:
    assert slow_assignments(ast.parse(source)) == [1]


@pytest.mark.parametrize(
    'source', ['message.data[:] = array', 'view = message.data', 'message.data.frombytes(array)']
)
def test_filling_data_is_allowed(source: str) -> None:
    assert slow_assignments(ast.parse(source)) == []
