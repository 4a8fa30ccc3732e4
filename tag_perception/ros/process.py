"""Running a command so that SIGINT or SIGTERM ends it with exit code 0 within two seconds.

Python delivers signals to the main thread only, and only between two bytecodes: a convolution or a
wait inside DDS would hold them back for seconds, and an exception raised at a random place could
tear a half-written message. So the work runs in a second thread and asks `stop` between its steps,
while the main thread does nothing but wait for signals. Imports are light here on purpose: the
handlers stand before torch starts to load.
"""

from __future__ import annotations

import ctypes
import importlib.util
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from tag_perception.config import InputError
from tag_perception.ros import transport

GRACE_S = 0.8
"""How long the work may take to end by itself before the process leaves without it."""
LOOK_S = 0.1
"""How often the main thread looks for signals: the kernel may give one to another thread, which
sets Python's flag, but does not wake the thread whose business it is."""


class Stop:
    """Set once when the process has to end; the work asks it, the signal handlers set it."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._closers: list[Callable[[], object]] = []

    def is_set(self) -> bool:
        """Whether the work has to end."""
        return self._event.is_set()

    def set(self) -> None:
        """Ask the work to end."""
        self._event.set()

    def wait(self, seconds: float) -> bool:
        """Sleep, but no longer than until the process has to end; True if it has to."""
        return self._event.wait(seconds)

    def on_abandon(self, close: Callable[[], object]) -> None:
        """Call `close`, from another thread, if the work does not end in time."""
        self._closers.append(close)

    def abandon(self) -> None:
        """Save what the work has, newest first."""
        for close in reversed(self._closers):
            close()


def run(work: Callable[[Stop], int | None], leave: bool = False) -> int:
    """Exit code of `work(stop)`, which runs in a second thread; 0 when a signal ended it.

    An exception of the work is raised here. Call from the main thread. `leave`: after a signal,
    end the process here, for unloading torch and DDS in good order may take a second.
    """
    stop = Stop()
    finished = threading.Event()
    outcome: list[int | BaseException | None] = []

    def target() -> None:
        try:
            _load_torch_library()
            outcome.append(work(stop))
        except BaseException as error:  # carried to the main thread and raised there
            outcome.append(error)
        finally:
            finished.set()

    def handle(_signal: int, _frame: object) -> None:
        stop.set()
        finished.set()

    previous = {
        number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        transport.keep_memory()  # before there is a second thread with memory of its own
        thread = threading.Thread(target=target, name='work', daemon=True)
        thread.start()
        while not finished.wait(LOOK_S):
            pass
        if stop.is_set():
            thread.join(GRACE_S)
            if thread.is_alive():
                stop.abandon()
                _leave()
        thread.join()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    result = outcome[0]
    if isinstance(result, BaseException):
        raise result
    if stop.is_set() and leave:
        _leave()
    return 0 if stop.is_set() else int(result or 0)


def _load_torch_library() -> None:
    """Load the largest library of torch before `import torch` does.

    The import holds Python's lock meanwhile, and with it back the signal handlers: for 0.2 s on an
    idle machine, for 2 s on a crowded one. A C function that ctypes calls does not. Where there is
    no such library, the import will say what it misses.
    """
    torch = importlib.util.find_spec('torch')
    for folder in (torch.submodule_search_locations or ()) if torch else ():
        library = Path(folder, 'lib', 'libtorch_cpu.so')
        ctypes.CDLL(None).dlopen(os.fsencode(library), ctypes.c_int(os.RTLD_NOW))


def _leave() -> None:
    """End the process, whatever its threads and libraries are doing."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def perception_node(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the executable `perception_node`."""

    def work(stop: Stop) -> int:
        from tag_perception.ros import node, session

        return session.serve(node.PerceptionNode, stop, arguments)

    try:
        return run(work, leave=True)
    except InputError as error:
        print(f'perception_node: {error}', file=sys.stderr)
        return 2
