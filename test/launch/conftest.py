"""`ros2 launch` on the source tree, with stand-ins that tell how they were started."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

STAND_IN = """#!{python}
import json, os, sys
with open({record!r}, 'a') as record:
    record.write(json.dumps({{'argv': sys.argv, 'environ': dict(os.environ)}}) + '\\n')
"""


def add_package(prefix, name, share, executable, script):
    """A package `name` below an ament prefix, with one executable and its share folder."""
    marker = prefix / 'share' / 'ament_index' / 'resource_index' / 'packages' / name
    marker.parent.mkdir(parents=True, exist_ok=True)
    marker.touch()
    (prefix / 'share' / name).symlink_to(share)
    program = prefix / 'lib' / name / executable
    program.parent.mkdir(parents=True)
    program.write_text(script)
    program.chmod(0o755)


@pytest.fixture
def ros2_launch(tmp_path):
    """ros2_launch(file, *arguments, node=script) → the finished process of `ros2 launch`.

    `node` is the script that runs instead of the installed perception_node; by default it and
    rviz2 append how they were started to `ros2_launch.record` (JSON lines) and end. Once
    `interrupt_at` has been printed, all processes get the SIGINT of a Ctrl-C.
    """
    prefix, record = tmp_path / 'prefix', tmp_path / 'record.jsonl'
    stand_in = STAND_IN.format(python=sys.executable, record=str(record))

    def run(file, *arguments, node=stand_in, rviz=True, interrupt_at=None, timeout_s=60):
        add_package(prefix, 'tag_perception', ROOT, 'perception_node', node)
        if rviz:
            add_package(prefix, 'rviz2', tmp_path, 'rviz2', stand_in)
        found = os.pathsep.join(filter(None, (str(prefix), os.environ.get('AMENT_PREFIX_PATH'))))
        launch = subprocess.Popen(
            ['ros2', 'launch', 'tag_perception', file, *arguments],
            env={**os.environ, 'AMENT_PREFIX_PATH': found, 'ROS_LOG_DIR': str(tmp_path / 'log')},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        watchdog = threading.Timer(timeout_s, os.killpg, (launch.pid, signal.SIGKILL))
        watchdog.start()
        lines = []
        with launch:
            for line in launch.stdout:
                lines.append(line)
                if interrupt_at is not None and interrupt_at in line:
                    os.killpg(launch.pid, signal.SIGINT)
                    interrupt_at = None
        watchdog.cancel()
        return subprocess.CompletedProcess(launch.args, launch.returncode, ''.join(lines))

    run.record = record
    return run
