"""Work on a GPU beside other work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Branch:
    """Work beside the current stream's: a second stream that leaves it and comes back to it."""

    def __init__(self) -> None:
        self._stream: torch.cuda.Stream | None = None

    @contextmanager
    def beside(self) -> Iterator[None]:
        """What is done in here may use all that was done before."""
        if self._stream is None:
            self._stream = torch.cuda.Stream()
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            yield

    def join(self) -> None:
        """What follows may use what was done beside."""
        if self._stream is not None:
            torch.cuda.current_stream().wait_stream(self._stream)
