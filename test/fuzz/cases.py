"""How many hostile inputs each test throws, how long one may take, and how many there were.

The suite throws the same inputs every time. `make fuzz` throws 25 times as many, new ones on each
run (FUZZ_SCALE), and prints how many; hypothesis remembers what failed.
"""

from __future__ import annotations

import faulthandler
import functools
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tag_perception.config import InputError

SCALE = int(os.environ.get('FUZZ_SCALE', '1'))
HANG_S = 120.0
"""One input that takes longer ends the run with the stack of every thread."""

thrown: Counter[str] = Counter()
"""Inputs so far by test."""


def cases(count: int) -> Callable[[Callable], Callable]:
    """Decorator below `@given`'s: run `count` · FUZZ_SCALE inputs, each watched for a hang."""

    def decorate(test: Callable) -> Callable:
        inner = test.hypothesis.inner_test
        name = f'{test.__module__.rpartition(".")[2]}: {test.__name__}'

        @functools.wraps(inner)
        def watched(*arguments, **values) -> None:
            thrown[name] += 1
            faulthandler.dump_traceback_later(HANG_S, exit=True)
            try:
                inner(*arguments, **values)
            finally:
                faulthandler.cancel_dump_traceback_later()

        test.hypothesis.inner_test = watched
        run = settings(
            max_examples=count * SCALE,
            deadline=None,
            derandomize=SCALE == 1,
            database=None if SCALE == 1 else settings.default.database,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        )(test)
        return pytest.mark.fuzz(run)

    return decorate


def assert_one_line(error: InputError, path: Path | None = None) -> None:
    """A refusal is one line, which begins with the file if it is about one."""
    assert path is None or str(error).startswith(f'{path}: '), error
    assert '\n' not in str(error), error


@contextmanager
def memory_taken() -> Iterator[Callable[[], int]]:
    """`with memory_taken() as peak: …; peak()` → bytes of memory that the block added at most."""
    Path('/proc/self/clear_refs').write_text('5')  # forget the peak so far
    before = _peak_bytes()
    yield lambda: _peak_bytes() - before


def _peak_bytes() -> int:
    line = next(
        line
        for line in Path('/proc/self/status').read_text().splitlines()
        if line.startswith('VmHWM')
    )
    return int(line.split()[1]) * 1024
