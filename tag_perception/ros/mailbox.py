"""One-slot mailboxes in which the newest frame wins, and the one thread that empties them.

Where that thread can go on meanwhile, each mailbox has another that finishes its frames.
Every frame is counted on arrival, and once more where it ends: processed, superseded (by a newer
frame, or because work stopped) or rejected. At rest the three add up to `received`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

Item = TypeVar('Item')
Outcome = tuple[int, Callable[[], object] | Exception]
"""Of which mailbox's frame it is told, and how to finish that, or what went wrong with it."""


@dataclass(frozen=True)
class Counts:
    """What became of the frames so far."""

    received: int = 0
    processed: int = 0
    superseded: int = 0
    rejected: int = 0

    @property
    def under_way(self) -> int:
        """Frames waiting or being worked on: at most three, none at rest."""
        return self.received - self.processed - self.superseded - self.rejected

    def __str__(self) -> str:
        return (
            f'{self.received} received = {self.processed} processed + '
            f'{self.superseded} superseded + {self.rejected} rejected'
        )


class Mailbox(Generic[Item]):
    """One slot. Any thread may put, one thread takes; closed until `open()`."""

    def __init__(self, changed: threading.Condition | None = None) -> None:
        """Mailboxes that one worker empties share `changed`."""
        self.changed = changed or threading.Condition()
        """Notified when a frame comes, when one ends, and when the mailbox closes."""
        self._slot: Item | None = None
        self._in_hand = 0
        self._open = False
        self._counts = Counts()

    @property
    def counts(self) -> Counts:
        """A consistent snapshot."""
        with self.changed:
            return self._counts

    @property
    def is_open(self) -> bool:
        """Whether it accepts frames."""
        return self._open

    @property
    def waiting(self) -> bool:
        """Whether there is a frame to take."""
        return self._slot is not None

    @property
    def in_hand(self) -> int:
        """Frames that were taken and have not ended."""
        return self._in_hand

    def open(self) -> None:
        """Accept frames."""
        with self.changed:
            self._open = True

    def close(self) -> None:
        """Supersede the waiting frame and wake the taker; no frame waits from now on."""
        with self.changed:
            self._open = False
            if self._slot is not None:
                self._slot = None
                self._count(superseded=1)
            self.changed.notify_all()

    def put(self, item: Item) -> None:
        """Hand over a frame; one that still waits is superseded by it."""
        with self.changed:
            self._count(received=1)
            if not self._open or self._slot is not None:
                self._count(superseded=1)
            if self._open:
                self._slot = item
                self.changed.notify_all()

    def reject(self) -> None:
        """Count a frame that is unusable on arrival. One that waits is not affected."""
        with self.changed:
            self._count(received=1, rejected=1)

    def skip(self) -> None:
        """Count a frame that is passed over on arrival, as superseded."""
        with self.changed:
            self._count(received=1, superseded=1)

    def take(self) -> Item | None:
        """Take the waiting frame in hand; None if there is none."""
        with self.changed:
            item, self._slot = self._slot, None
            self._in_hand += item is not None
            return item

    def finish(self, processed: bool) -> None:
        """Count a frame in hand as processed or rejected, unless it was abandoned."""
        with self.changed:
            if self._in_hand:
                self._in_hand -= 1
                self._count(processed=int(processed), rejected=int(not processed))
                self.changed.notify_all()

    def abandon(self) -> None:
        """Close, and supersede the frames in hand: nobody will wait for the end of their work."""
        with self.changed:
            self.close()
            self._count(superseded=self._in_hand)
            self._in_hand = 0

    def _count(self, **more: int) -> None:
        values = {name: getattr(self._counts, name) + number for name, number in more.items()}
        self._counts = replace(self._counts, **values)


class Worker(Generic[Item]):
    """The thread that works on what waits in the mailboxes, from start to stop.

    It never waits for a second frame, and a mailbox whose last turn is longest ago comes first.
    Either it also finishes the frames, or it goes on while each mailbox has a thread that does.
    """

    def __init__(
        self,
        mailboxes: Sequence[Mailbox[Item]],
        work: Callable[[dict[int, Item]], Iterable[Outcome]],
        on_error: Callable[[int, Exception], None],
        limit: int = 1,
        beside: bool = False,
    ) -> None:
        """`work` gets the frames of at most `limit` mailboxes and tells how to finish each.

        Frames are known by the position of their mailbox; the mailboxes share one `changed`. The
        error of a frame goes to `on_error`, and the frame counts as rejected; what `work` raises
        is the error of every frame it has not told about.

        `beside`: frames are finished while `work` has the next ones, those of different mailboxes
        at the same time, those of one mailbox one after the other. As long as two of its frames
        have not ended, no third one is taken: nothing queues up, and nobody waits for a slow one.
        """
        self._mailboxes, self._work, self._on_error = mailboxes, work, on_error
        self._limit = limit
        self._most_in_hand = 2 if beside else 1
        self._finishers = [ThreadPoolExecutor(1, 'finish') for _ in mailboxes if beside]
        self._turns = list(range(len(mailboxes)))  # longest without a turn first
        self._changed = mailboxes[0].changed
        self._thread = threading.Thread(target=self._run, name='perception', daemon=True)
        for mailbox in mailboxes:
            mailbox.open()
        self._thread.start()

    def stop(self) -> None:
        """Take no new frame; return when those in hand are finished."""
        for mailbox in self._mailboxes:
            mailbox.close()
        self._thread.join()
        for finisher in self._finishers:
            finisher.shutdown()

    def _run(self) -> None:
        while taken := self._take():
            for index, outcome in self._outcomes(taken):
                if self._finishers:  # errors as well, so that frames end in their order
                    self._finishers[index].submit(self._finish, index, outcome)
                else:
                    self._finish(index, outcome)

    def _finish(self, index: int, outcome: Callable[[], object] | Exception) -> None:
        try:
            if isinstance(outcome, Exception):
                raise outcome
            outcome()
        except Exception as error:
            self._mailboxes[index].finish(processed=False)
            self._on_error(index, error)
        else:
            self._mailboxes[index].finish(processed=True)

    def _take(self) -> dict[int, Item]:
        """Wait for a frame and take it in hand with others that wait; empty once all is closed."""
        boxes = self._mailboxes
        with self._changed:
            self._changed.wait_for(lambda: self._due() or not any(b.is_open for b in boxes))
            now = self._due()[: self._limit]
            self._turns = [index for index in self._turns if index not in now] + now
            taken = {index: boxes[index].take() for index in now}
        return {index: item for index, item in taken.items() if item is not None}

    def _due(self) -> list[int]:
        """The mailboxes of which a frame can be taken, longest without a turn first."""
        boxes, most = self._mailboxes, self._most_in_hand
        return [i for i in self._turns if boxes[i].waiting and boxes[i].in_hand < most]

    def _outcomes(self, taken: dict[int, Item]) -> Iterator[Outcome]:
        under_way = dict.fromkeys(taken)
        try:
            for index, outcome in self._work(taken):
                del under_way[index]
                yield index, outcome
        except Exception as error:  # bad frames must not end the node
            for index in under_way:
                yield index, error
