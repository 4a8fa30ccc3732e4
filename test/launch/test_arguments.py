"""The launch files against what they refer to; needs no launch packages."""

import ast
from pathlib import Path

import pytest
import yaml

from tag_perception.config import flatten

ROOT = Path(__file__).parents[2]
FILES = ('perception', 'replay')


def tree(name):
    return ast.parse((ROOT / 'launch' / f'{name}.launch.py').read_text())


def calls(name, function):
    return [
        node
        for node in ast.walk(tree(name))
        if isinstance(node, ast.Call) and getattr(node.func, 'id', None) == function
    ]


def declared(name):
    """Name → keyword arguments of every DeclareLaunchArgument with a literal name."""
    return {
        call.args[0].value: {k.arg: k.value for k in call.keywords}
        for call in calls(name, 'DeclareLaunchArgument')
        if isinstance(call.args[0], ast.Constant)
    }


@pytest.mark.parametrize('name', FILES)
def test_every_argument_is_described_and_told_of_in_the_readme(name):
    readme = (ROOT / 'README.md').read_text()
    assert declared(name)
    for argument, options in declared(name).items():
        assert 'description' in options, argument
        assert f'`{argument}`' in readme or f'{argument}:=' in readme, argument


def test_what_the_launch_file_sets_are_parameters_of_the_node():
    parameters = yaml.safe_load((ROOT / 'config' / 'perception_node.yaml').read_text())
    known = flatten(parameters['/**']['ros__parameters'])
    strings = {
        node.value
        for node in ast.walk(tree('perception'))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    set_here = {text for text in strings if text.startswith('engine.')}
    assert {'engine.checkpoint', 'engine.device'} <= set_here <= set(known)


def test_the_executable_is_installed_under_that_name():
    node = next(iter(calls('perception', 'LifecycleNode')))
    options = {k.arg: k.value for k in node.keywords if k.arg}
    executable = ast.literal_eval(options['executable'])
    assert f"'{executable} = tag_perception.entry:" in (ROOT / 'setup.py').read_text()


def test_the_verbs_that_a_replay_calls_exist():
    from tag_perception.cli import VERBS

    lists = [
        node.elts
        for node in ast.walk(tree('replay'))
        if isinstance(node, ast.List) and node.elts and isinstance(node.elts[0], ast.Starred)
    ]
    verbs = {
        elements[1].value
        for elements in lists
        if getattr(elements[0].value, 'id', None) == 'VERB'
        and isinstance(elements[1], ast.Constant)
    }
    assert verbs == {'wait-active', 'play-bag', 'record-bag', 'evaluate-bag'}
    assert verbs <= VERBS.keys()
