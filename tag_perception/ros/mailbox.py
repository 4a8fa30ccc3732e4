"""A one-slot mailbox in which the newest frame wins, and the one thread that empties it.

Every frame is counted on arrival, and once more where it ends: processed, superseded (by a newer
frame, or because work stopped) or rejected. At rest the three add up to `received`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

Item = TypeVar('Item')


@dataclass(frozen=True)
class Counts:
    """What became of the frames so far."""

    received: int = 0
    processed: int = 0
    superseded: int = 0
    rejected: int = 0

    @property
    def under_way(self) -> int:
        """Frames waiting or being worked on: at most two, none at rest."""
        return self.received - self.processed - self.superseded - self.rejected

    def __str__(self) -> str:
        return (
            f'{self.received} received = {self.processed} processed + '
            f'{self.superseded} superseded + {self.rejected} rejected'
        )


class Mailbox(Generic[Item]):
    """One slot. Any thread may put, one thread takes; closed until `open()`."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._slot: Item | None = None
        self._in_hand = False
        self._open = False
        self._counts = Counts()

    @property
    def counts(self) -> Counts:
        """A consistent snapshot."""
        with self._changed:
            return self._counts

    def open(self) -> None:
        """Accept frames."""
        with self._changed:
            self._open = True

    def close(self) -> None:
        """Supersede the waiting frame and wake the taker, which gets None from now on."""
        with self._changed:
            self._open = False
            if self._slot is not None:
                self._slot = None
                self._count(superseded=1)
            self._changed.notify_all()

    def put(self, item: Item) -> None:
        """Hand over a frame; one that still waits is superseded by it."""
        with self._changed:
            self._count(received=1)
            if not self._open or self._slot is not None:
                self._count(superseded=1)
            if self._open:
                self._slot = item
                self._changed.notify_all()

    def reject(self) -> None:
        """Count a frame that is unusable on arrival. One that waits is not affected."""
        with self._changed:
            self._count(received=1, rejected=1)

    def skip(self) -> None:
        """Count a frame that is passed over on arrival, as superseded."""
        with self._changed:
            self._count(received=1, superseded=1)

    def take(self) -> Item | None:
        """Wait for a frame and take it in hand; None once the mailbox is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._slot is not None or not self._open)
            item, self._slot = self._slot, None
            self._in_hand = item is not None
            return item

    def finish(self, processed: bool) -> None:
        """Count the frame in hand as processed or rejected, unless it was abandoned."""
        with self._changed:
            if self._in_hand:
                self._in_hand = False
                self._count(processed=int(processed), rejected=int(not processed))

    def abandon(self) -> None:
        """Supersede the frame in hand: nobody will wait for the end of its work."""
        with self._changed:
            if self._in_hand:
                self._in_hand = False
                self._count(superseded=1)

    def _count(self, **more: int) -> None:
        values = {name: getattr(self._counts, name) + number for name, number in more.items()}
        self._counts = replace(self._counts, **values)


class Worker(Generic[Item]):
    """The thread that works on one frame at a time, from start to stop."""

    def __init__(
        self,
        mailbox: Mailbox[Item],
        work: Callable[[Item], None],
        on_error: Callable[[Exception], None],
    ) -> None:
        """`on_error` gets what `work` raises; that frame counts as rejected."""
        self._mailbox, self._work, self._on_error = mailbox, work, on_error
        self._thread = threading.Thread(target=self._run, name='perception', daemon=True)
        mailbox.open()
        self._thread.start()

    def stop(self) -> None:
        """Take no new frame; return when the one in hand is finished."""
        self._mailbox.close()
        self._thread.join()

    def _run(self) -> None:
        while (item := self._mailbox.take()) is not None:
            try:
                self._work(item)
            except Exception as error:  # one bad frame must not end the node
                self._mailbox.finish(processed=False)
                self._on_error(error)
            else:
                self._mailbox.finish(processed=True)
