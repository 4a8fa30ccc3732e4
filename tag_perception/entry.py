"""Where our processes begin: the console scripts and `python -m tag_perception`.

Nothing is imported before Ctrl-C is looked after; what comes earlier is Python's own start, in
which Ctrl-C ends the process as Python has it.
"""

from __future__ import annotations

import sys

STOPPABLE = (
    'make-bag', 'play-bag', 'record-bag', 'process-bag', 'node', 'wait-active', 'demo',
    'benchmark',
)  # fmt: skip
"""Verbs that Ctrl-C ends with exit code 0, also before `process.run` has its handlers."""


def tag_perception() -> int:
    """`ros2 run tag_perception tag_perception VERB …`."""
    try:
        from tag_perception.cli import main

        return main()
    except KeyboardInterrupt:
        return 0 if sys.argv[1:] and sys.argv[1] in STOPPABLE else 130


def perception_node() -> int:
    """`ros2 run tag_perception perception_node …`, and what the launch files start."""
    try:
        from tag_perception.ros.process import perception_node as run

        return run()
    except KeyboardInterrupt:
        return 0


def benchmark() -> int:
    """`ros2 run tag_perception benchmark …`: the verb as an executable of its own."""
    sys.argv.insert(1, 'benchmark')
    return tag_perception()
