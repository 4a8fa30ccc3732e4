"""Work on a GPU beside other work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Branch:
    """Work beside the current stream's: a second stream that leaves it and comes back to it."""

    def __init__(self) -> None:
        self._stream: torch.cuda.Stream | None = None
        self._used: list[object] = []

    @contextmanager
    def beside(self, *used: object) -> Iterator[None]:
        """What is done in here may use all that was done before.

        `used` is kept until both have joined: the memory of what nobody holds is given away as
        soon as its own stream has no more work for it.
        """
        self._used += used
        self._beside().wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._beside()):
            yield

    @contextmanager
    def after(self, event: torch.cuda.Event) -> Iterator[None]:
        """What is done in here may use what was done before `event`, and waits for no more."""
        self._beside().wait_event(event)
        with torch.cuda.stream(self._beside()):
            yield

    def join(self) -> None:
        """What follows may use what was done beside."""
        if self._stream is not None:
            torch.cuda.current_stream().wait_stream(self._stream)
        self._used.clear()

    def _beside(self) -> torch.cuda.Stream:
        if self._stream is None:
            self._stream = torch.cuda.Stream()
        return self._stream
