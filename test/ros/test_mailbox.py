from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tag_perception.ros.mailbox import Counts, Mailbox, Outcome, Worker
from tag_perception.ros.messages import Rejected

from .fakes import TIMEOUT_S


def wait_for(condition) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def one_worker(
    mailbox: Mailbox, work: Callable[[Any], None], errors: list[Exception] | None = None
) -> Worker:
    """A worker with one mailbox, whose errors are kept in `errors`."""

    def work_on(frames: dict[int, Any]) -> Iterator[Outcome]:
        work(frames[0])
        yield 0, None

    kept = [] if errors is None else errors
    return Worker([mailbox], work_on, lambda _, error: kept.append(error))


class MailboxMachine(RuleBasedStateMachine):
    """The mailbox against the plainest model: a list of what became of every frame."""

    def __init__(self) -> None:
        super().__init__()
        self.mailbox: Mailbox[int] = Mailbox()
        self.fates: dict[int, str] = {}
        self.waiting: int | None = None
        self.in_hand: int | None = None
        self.is_open = False

    @rule()
    def open(self) -> None:
        self.mailbox.open()
        self.is_open = True

    @rule()
    def close(self) -> None:
        self.mailbox.close()
        self.is_open = False
        if self.waiting is not None:
            self.fates[self.waiting], self.waiting = 'superseded', None

    @rule()
    def put(self) -> None:
        frame = len(self.fates)
        self.mailbox.put(frame)
        self.fates[frame] = 'under way' if self.is_open else 'superseded'
        if self.is_open:
            if self.waiting is not None:
                self.fates[self.waiting] = 'superseded'
            self.waiting = frame

    @rule()
    def reject(self) -> None:
        self.mailbox.reject()
        self.fates[len(self.fates)] = 'rejected'

    @rule()
    def take(self) -> None:
        if self.in_hand is None and (self.waiting is not None or not self.is_open):
            assert self.mailbox.take() == self.waiting
            self.in_hand, self.waiting = self.waiting, None

    @rule(processed=st.booleans())
    def finish(self, processed: bool) -> None:
        self.mailbox.finish(processed)
        if self.in_hand is not None:
            self.fates[self.in_hand] = 'processed' if processed else 'rejected'
            self.in_hand = None

    @rule()
    def abandon(self) -> None:
        self.mailbox.abandon()
        if self.in_hand is not None:
            self.fates[self.in_hand], self.in_hand = 'superseded', None

    @invariant()
    def counts_match_the_fates(self) -> None:
        fates = list(self.fates.values())
        counts = self.mailbox.counts
        assert counts == Counts(
            received=len(fates),
            processed=fates.count('processed'),
            superseded=fates.count('superseded'),
            rejected=fates.count('rejected'),
        )
        assert counts.under_way == fates.count('under way') <= 2


TestMailbox = MailboxMachine.TestCase
TestMailbox.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)


@given(st.lists(st.sampled_from(['good', 'bad', 'broken', 'restart', 'pause']), max_size=25))
@settings(max_examples=40, deadline=None)
def test_counts_add_up_whatever_happens_to_a_running_worker(events):
    mailbox: Mailbox[str] = Mailbox()
    errors: list[Exception] = []

    def work(item: str) -> None:
        if item == 'bad':
            raise Rejected('bad')

    worker = one_worker(mailbox, work, errors)
    for event in events:
        if event in ('good', 'bad'):
            mailbox.put(event)
        elif event == 'broken':
            mailbox.reject()
        elif event == 'restart':
            worker.stop()
            assert mailbox.counts.under_way == 0
            worker = one_worker(mailbox, work, errors)
        else:
            wait_for(lambda: mailbox.counts.under_way == 0)
    worker.stop()
    counts = mailbox.counts
    assert counts.under_way == 0
    assert counts.received == sum(event in ('good', 'bad', 'broken') for event in events)
    assert counts.received == counts.processed + counts.superseded + counts.rejected
    assert counts.rejected == len(errors) + events.count('broken')


def test_newest_frame_wins():
    mailbox: Mailbox[int] = Mailbox()
    go, done = threading.Event(), []

    def work(item: int) -> None:
        assert go.wait(TIMEOUT_S)
        done.append(item)

    worker = one_worker(mailbox, work)
    mailbox.put(0)
    wait_for(lambda: not mailbox.waiting)
    for item in range(1, 10):
        mailbox.put(item)
    go.set()
    wait_for(lambda: mailbox.counts.under_way == 0)
    worker.stop()
    assert done == [0, 9]
    assert mailbox.counts == Counts(received=10, processed=2, superseded=8)
    assert str(mailbox.counts) == '10 received = 2 processed + 8 superseded + 0 rejected'


def test_a_failing_frame_does_not_end_the_worker():
    mailbox: Mailbox[int] = Mailbox()
    errors: list[Exception] = []

    def work(item: int) -> None:
        if item == 1:
            raise RuntimeError('out of luck')

    worker = one_worker(mailbox, work, errors)
    for item in range(3):
        mailbox.put(item)
        wait_for(lambda: mailbox.counts.under_way == 0)
    worker.stop()
    assert mailbox.counts == Counts(received=3, processed=2, rejected=1)
    assert [str(error) for error in errors] == ['out of luck']


def test_stopping_finishes_the_frame_in_hand_and_supersedes_the_waiting_one():
    mailbox: Mailbox[int] = Mailbox()
    go, done = threading.Event(), []

    def work(item: int) -> None:
        assert go.wait(TIMEOUT_S)
        done.append(item)

    worker = one_worker(mailbox, work)
    mailbox.put(0)
    wait_for(lambda: not mailbox.waiting)
    mailbox.put(1)
    threading.Timer(0.05, go.set).start()
    worker.stop()
    assert done == [0]
    assert mailbox.counts == Counts(received=2, processed=1, superseded=1)
