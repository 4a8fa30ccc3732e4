"""Work on a GPU beside other work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Branch:
    """Work beside the current stream's: a second stream that leaves it and comes back to it."""

    def __init__(self, stream: torch.cuda.Stream) -> None:
        self.stream = stream
        self._used: list[object] = []

    @contextmanager
    def beside(self, *used: object) -> Iterator[None]:
        """What is done in here may use all that was done before.

        `used` is kept until both have joined: the memory of what nobody holds is given away as
        soon as its own stream has no more work for it.
        """
        self._used += used
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            yield

    @contextmanager
    def after(self, event: torch.cuda.Event) -> Iterator[None]:
        """What is done in here may use what was done before `event`, and waits for no more."""
        self.stream.wait_event(event)
        with torch.cuda.stream(self.stream):
            yield

    def join(self) -> None:
        """What follows may use what was done beside."""
        torch.cuda.current_stream().wait_stream(self.stream)
        self._used.clear()
