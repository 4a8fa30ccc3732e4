from __future__ import annotations

import time

import pytest

from tag_perception.config import InputError
from tag_perception.ros.children import Children


def wait_for_end(child):
    deadline_s = time.monotonic() + 30
    while time.monotonic() < deadline_s:
        child.check()
        time.sleep(0.02)
    raise AssertionError('the child should have ended')


def test_a_child_that_fails_is_named_with_its_last_line(tmp_path):
    log = tmp_path / 'log'
    with Children() as children:
        child = children.start('the singer', ['sing', 'aloud'], log)
        with pytest.raises(InputError) as failure:
            wait_for_end(child)
    text = str(failure.value)
    assert text.startswith('the singer ended (exit code 2): tag_perception: no verb')
    assert str(log) in text
    assert '\n' not in text


def test_even_a_child_that_ends_well_is_missed(tmp_path):
    with Children() as children:
        child = children.start('the helper', ['--help'], tmp_path / 'log')
        with pytest.raises(InputError, match='exit code 0'):
            wait_for_end(child)
        assert child.said('usage:')


def test_children_end_with_the_block_and_are_not_missed_then(tmp_path):
    with Children() as children:
        child = children.start(
            'the recorder', ['record-bag', str(tmp_path / 'a')], tmp_path / 'log'
        )
        children.check()
    child.check()
    assert child.join(0) is not None


def test_a_child_that_said_nothing(tmp_path):
    with Children() as children:
        child = children.start('the helper', ['--help'], tmp_path / 'log')
        (tmp_path / 'log').write_text('\n \n')
        assert child.last_line() == 'it said nothing'
