"""What the verbs share: their parsers, ROS arguments, and work that Ctrl-C may end."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any


def parser_of(verb: Callable[[Sequence[str]], int]) -> argparse.ArgumentParser:
    """An empty parser for the function of a verb, with its name and docstring."""
    return argparse.ArgumentParser(
        prog=f'tag_perception {verb.__name__.replace("_", "-")}',
        description=verb.__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )


def stoppable(work: Callable[[Any], None]) -> int:
    """Work that Ctrl-C may end at any time, with what is done kept and exit code 0."""
    from tag_perception.ros.process import run

    return run(work, leave=True)


def split_ros(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Our arguments and those from --ros-args on."""
    arguments = list(arguments)
    cut = arguments.index('--ros-args') if '--ros-args' in arguments else len(arguments)
    return arguments[:cut], arguments[cut:]


def print_topics(path: str, counts: dict[str, int]) -> None:
    """Messages of a bag by topic."""
    print(f'{path}: {sum(counts.values())} messages')
    for topic, count in sorted(counts.items()):
        print(f'  {count:6d}  {topic}')
