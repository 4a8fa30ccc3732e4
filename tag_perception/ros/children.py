"""Processes of ours that work beside this one, each with its output in a log file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from tag_perception.config import InputError
from tag_perception.ros import transport

POLL_S = 0.05
LEAVE_S = 5.0
"""How long a child may take to end after SIGINT before it is killed."""
ABANDON_S = 0.6
"""With the grace of process.run, less than the two seconds in which a process has to end."""


class Child:
    """One verb or module of this package as its own process, with the transport for large images.

    It shares the terminal's process group, so that Ctrl-C reaches it as well.
    """

    def __init__(self, name: str, arguments: Sequence[str], log: Path, module: str) -> None:
        self.name, self.log = name, log
        self._expected = False
        with log.open('wb') as sink:
            self._process = subprocess.Popen(
                [sys.executable, '-m', module, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env={**os.environ, **transport.environment()},
            )

    def check(self) -> None:
        """Raise InputError with the child's last line if it has ended without being asked to."""
        code = self._process.poll()
        if code is None or self._expected:
            return
        how = f'exit code {code}' if code >= 0 else signal.Signals(-code).name
        raise InputError(f'{self.name} ended ({how}): {self.last_line()} (all of it: {self.log})')

    def cpu_s(self) -> float:
        """Processor time that the child has used so far, of all its threads."""
        fields = Path(f'/proc/{self._process.pid}/stat').read_text().rpartition(')')[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')

    def said(self, text: str) -> bool:
        """Whether `text` stands in the child's output so far."""
        return text in self.log.read_text(errors='replace')

    def last_line(self) -> str:
        """The last thing the child said."""
        lines = self.log.read_text(errors='replace').replace('\r', '\n').split('\n')
        return next((line.strip() for line in reversed(lines) if line.strip()), 'it said nothing')

    @property
    def alive(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def interrupt(self) -> None:
        """Ask the child to end, as Ctrl-C does; it closes what it writes."""
        self._expected = True
        if self.alive:
            self._process.send_signal(signal.SIGINT)

    def join(self, timeout_s: float = LEAVE_S) -> int:
        """Exit code of a child that was asked to end; it is killed if it does not."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


class Children:
    """Children that end together, the youngest first, however the `with` block is left."""

    def __init__(self) -> None:
        self._all: list[Child] = []

    def start(
        self, name: str, arguments: Sequence[str], log: Path, module: str = 'tag_perception'
    ) -> Child:
        """Start one more."""
        self._all.append(Child(name, arguments, log, module))
        return self._all[-1]

    def check(self) -> None:
        """Raise InputError if one of them has ended without being asked to."""
        for child in self._all:
            child.check()

    def interrupt(self) -> None:
        """Ask all of them to end."""
        for child in reversed(self._all):
            child.interrupt()

    def abandon(self) -> None:
        """The same from a process that is about to leave: what they write is to be closed first.

        They get what is left of the two seconds after a signal; none is killed.
        """
        self.interrupt()
        deadline_s = time.monotonic() + ABANDON_S
        while any(child.alive for child in self._all) and time.monotonic() < deadline_s:
            time.sleep(0.02)

    def __enter__(self) -> Children:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.interrupt()
        deadline_s = time.monotonic() + LEAVE_S
        for child in reversed(self._all):
            child.join(max(deadline_s - time.monotonic(), 0.0))
