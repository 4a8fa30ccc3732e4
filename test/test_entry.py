"""Ctrl-C counts from the first line of ours on; torch starts with threads that make way."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tag_perception import entry

PROGRAM = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from tag_perception import entry

moment, function, *arguments = sys.argv[1:]

class Interrupt:
    done = False

    def find_spec(self, name, path=None, target=None):
        if name == moment and not self.done:
            self.done = True
            print('now', flush=True)
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
sys.argv = [function, *arguments]
sys.exit(getattr(entry, function)())
"""


@pytest.mark.parametrize(
    ('moment', 'words', 'code'),
    [
        ('tag_perception.cli', 'tag_perception node', 0),
        ('argparse', 'tag_perception demo', 0),
        ('argparse', 'benchmark engine', 0),
        ('argparse', 'tag_perception train', 130),
        ('tag_perception.cli', 'tag_perception', 130),
        ('tag_perception.ros', 'perception_node', 0),
        ('tag_perception.ros.process', 'perception_node', 0),
        ('torch', 'perception_node', 0),
        ('torch', 'tag_perception node', 0),
    ],
)
def test_ctrl_c_while_modules_load(moment, words, code):
    if moment == 'torch':
        pytest.importorskip('rclpy')
    command = [sys.executable, '-c', PROGRAM, moment, *words.split()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout == 'now\n'
    assert done.stderr == ''
    assert done.returncode == code


SPINNING = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from tag_perception import entry

class Look:
    def find_spec(self, name, path=None, target=None):
        if name == 'torch':
            print(os.environ.get('GOMP_SPINCOUNT'))
            raise KeyboardInterrupt

sys.meta_path.insert(0, Look())
function = sys.argv[1]
sys.argv = [function, 'costs']
sys.exit(getattr(entry, function)())
"""


@pytest.mark.parametrize(
    ('given', 'found'),
    [
        ({}, entry.SPINS),
        ({'GOMP_SPINCOUNT': '7'}, '7'),
        ({'OMP_WAIT_POLICY': 'ACTIVE'}, 'None'),
    ],
)
@pytest.mark.parametrize('function', ['tag_perception', 'perception_node'])
def test_threads_that_wait_make_way_unless_the_user_wants_otherwise(given, found, function):
    if function == 'perception_node':
        pytest.importorskip('rclpy')
    ours = ('GOMP_SPINCOUNT', 'OMP_WAIT_POLICY')
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    command = [sys.executable, '-c', SPINNING, function]
    done = subprocess.run(
        command, env={**environment, **given}, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.splitlines() == [found]
