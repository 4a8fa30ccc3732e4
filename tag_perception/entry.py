"""Where our processes begin: the console scripts and `python -m tag_perception`.

Nothing is imported before Ctrl-C is looked after; what comes earlier is Python's own start, in
which Ctrl-C ends the process as Python has it.
"""

from __future__ import annotations

import os
import sys

STOPPABLE = (
    'make-bag', 'play-bag', 'record-bag', 'process-bag', 'node', 'wait-active', 'demo',
    'benchmark',
)  # fmt: skip
"""Verbs that Ctrl-C ends with exit code 0, also before `process.run` has its handlers."""

SPINS = '3000'
"""How often a thread of torch looks for work before it sleeps (libgomp's own: 300,000 and more,
about a millisecond). Beside a process that wants the same cores, the one with work is not let in
as long as the others look, and a frame takes several times as long (docs/speed.md)."""


def share_cores() -> None:
    """Let threads that wait make way; to be called before torch is imported."""
    if 'OMP_WAIT_POLICY' not in os.environ:
        os.environ.setdefault('GOMP_SPINCOUNT', SPINS)


def tag_perception() -> int:
    """`ros2 run tag_perception tag_perception VERB …`."""
    try:
        share_cores()
        from tag_perception.cli import main

        return main()
    except KeyboardInterrupt:
        return 0 if sys.argv[1:] and sys.argv[1] in STOPPABLE else 130


def perception_node() -> int:
    """`ros2 run tag_perception perception_node …`, and what the launch files start."""
    try:
        share_cores()
        from tag_perception.ros.process import perception_node as run

        return run()
    except KeyboardInterrupt:
        return 0


def benchmark() -> int:
    """`ros2 run tag_perception benchmark …`: the verb as an executable of its own."""
    sys.argv.insert(1, 'benchmark')
    return tag_perception()
