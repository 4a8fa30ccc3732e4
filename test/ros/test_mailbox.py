from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tag_perception.ros.mailbox import Counts, Mailbox, Outcome, Worker
from tag_perception.ros.wire import Rejected

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
        yield 0, partial(work, frames[0])

    kept = [] if errors is None else errors
    return Worker([mailbox], work_on, lambda _, error: kept.append(error))


class MailboxMachine(RuleBasedStateMachine):
    """The mailbox against the plainest model: a list of what became of every frame."""

    def __init__(self) -> None:
        super().__init__()
        self.mailbox: Mailbox[int] = Mailbox()
        self.fates: dict[int, str] = {}
        self.waiting: int | None = None
        self.in_hand: list[int] = []
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
        if len(self.in_hand) < 2:
            assert self.mailbox.take() == self.waiting
            self.in_hand += [] if self.waiting is None else [self.waiting]
            self.waiting = None

    @rule(processed=st.booleans())
    def finish(self, processed: bool) -> None:
        self.mailbox.finish(processed)
        if self.in_hand:
            self.fates[self.in_hand.pop(0)] = 'processed' if processed else 'rejected'

    @rule()
    def abandon(self) -> None:
        self.mailbox.abandon()
        self.is_open = False
        lost = self.in_hand if self.waiting is None else [*self.in_hand, self.waiting]
        self.fates.update(dict.fromkeys(lost, 'superseded'))
        self.in_hand, self.waiting = [], None

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
        assert counts.under_way == fates.count('under way') <= 3
        assert self.mailbox.in_hand == len(self.in_hand)


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


class Row:
    """Several mailboxes with one worker that is let go on from batch to batch."""

    def __init__(self, count: int, limit: int, beside: bool = False) -> None:
        changed = threading.Condition()
        self.mailboxes: list[Mailbox[int]] = [Mailbox(changed) for _ in range(count)]
        self.batches: list[dict[int, int]] = []
        self.errors: dict[int, Exception] = {}
        self.go = threading.Semaphore(0)
        self.worker = Worker(self.mailboxes, self._work, self.errors.__setitem__, limit, beside)

    def _work(self, frames: dict[int, int]) -> Iterator[Outcome]:
        self.batches.append(frames)
        assert self.go.acquire(timeout=TIMEOUT_S)
        for index, frame in frames.items():
            if frame < -1:
                raise RuntimeError('everything is lost')
            yield index, Rejected('bad') if frame == -1 else lambda: None

    def rest(self) -> None:
        """Let the worker go on until it is done, and stop it."""
        self.go.release(1000)
        wait_for(lambda: not any(mailbox.counts.under_way for mailbox in self.mailboxes))
        self.worker.stop()


def test_what_waits_together_is_worked_on_together_and_nothing_waits_for_more():
    row = Row(count=3, limit=8)
    row.mailboxes[1].put(0)
    wait_for(lambda: row.batches == [{1: 0}])
    for frame in (1, 2):
        for mailbox in row.mailboxes:
            mailbox.put(frame)
    row.rest()
    assert row.batches == [{1: 0}, {0: 2, 2: 2, 1: 2}]  # 1 had its turn already
    assert [str(mailbox.counts) for mailbox in row.mailboxes] == [
        '2 received = 1 processed + 1 superseded + 0 rejected',
        '3 received = 2 processed + 1 superseded + 0 rejected',
        '2 received = 1 processed + 1 superseded + 0 rejected',
    ]


def test_a_mailbox_that_is_always_full_lets_every_other_have_its_turn():
    row = Row(count=4, limit=1)
    row.mailboxes[0].put(0)
    wait_for(lambda: len(row.batches) == 1)
    for turn in range(1, 9):
        row.mailboxes[0].put(turn)
        if turn in (1, 5):
            row.mailboxes[3].put(turn)
        if turn == 1:
            row.mailboxes[2].put(turn)
        row.go.release()
        wait_for(lambda turn=turn: len(row.batches) == turn + 1)
    row.rest()
    turns = [next(iter(batch)) for batch in row.batches]
    assert turns == [0, 2, 3, 0, 0, 3, 0, 0, 0]


def test_the_error_of_one_frame_is_not_that_of_another():
    row = Row(count=4, limit=4)
    row.mailboxes[0].put(0)
    wait_for(lambda: len(row.batches) == 1)
    for mailbox, frame in zip(row.mailboxes, (1, -1, 1, 1), strict=True):
        mailbox.put(frame)
    row.rest()
    assert [m.counts.rejected for m in row.mailboxes] == [0, 1, 0, 0]
    assert [m.counts.processed for m in row.mailboxes] == [2, 0, 1, 1]
    assert {index: str(error) for index, error in row.errors.items()} == {1: 'bad'}


def test_what_the_work_raises_is_the_error_of_every_frame_it_has_not_finished():
    row = Row(count=3, limit=3)
    row.mailboxes[2].put(0)
    wait_for(lambda: len(row.batches) == 1)
    for mailbox, frame in zip(row.mailboxes, (1, -2, 1), strict=True):
        mailbox.put(frame)
    row.rest()
    assert [m.counts.processed for m in row.mailboxes] == [1, 0, 1]
    assert {index: str(error) for index, error in row.errors.items()} == {
        1: 'everything is lost',
        2: 'everything is lost',
    }


@given(
    st.integers(1, 4),
    st.booleans(),
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from([1, -1, -2, None])), max_size=30),
)
@settings(max_examples=30, deadline=None)
def test_counts_of_every_mailbox_add_up_whatever_happens(limit, beside, events):
    row = Row(count=4, limit=limit, beside=beside)
    row.go.release(1000)
    for index, frame in events:
        if frame is None:
            row.mailboxes[index].reject()
        else:
            row.mailboxes[index].put(frame)
    row.rest()
    for index, mailbox in enumerate(row.mailboxes):
        counts = mailbox.counts
        assert counts.received == sum(at == index for at, _ in events)
        assert counts.received == counts.processed + counts.superseded + counts.rejected
    assert all(1 <= len(batch) <= limit for batch in row.batches)


class Desk:
    """Mailboxes of a worker whose frames are finished one by one, when the test says so."""

    def __init__(self, count: int, limit: int = 8, beside: bool = True) -> None:
        changed = threading.Condition()
        self.mailboxes: list[Mailbox[str]] = [Mailbox(changed) for _ in range(count)]
        self.said: list[str] = []
        """What happened, in this order."""
        self.go: dict[str, threading.Event] = {}
        self.passing = threading.Event()
        self.passing.set()
        self.worker = Worker(self.mailboxes, self._work, self._on_error, limit, beside)

    def put(self, *frames: str) -> None:
        """Each into the mailbox that its first letter names: a, b, …"""
        for frame in frames:
            self.go.setdefault(frame, threading.Event())
            self.mailboxes[ord(frame[0]) - ord('a')].put(frame)

    def until(self, said: str) -> None:
        wait_for(lambda: said in self.said)

    def rest(self) -> None:
        for go in self.go.values():
            go.set()
        wait_for(lambda: not any(mailbox.counts.under_way for mailbox in self.mailboxes))
        self.worker.stop()

    def _work(self, frames: dict[int, str]) -> Iterator[Outcome]:
        self.said.append('pass ' + ' '.join(frames.values()))
        assert self.passing.wait(TIMEOUT_S)
        for index, frame in frames.items():
            yield index, Rejected(frame) if 'bad' in frame else partial(self._finish, frame)

    def _finish(self, frame: str) -> None:
        self.said.append(f'begin {frame}')
        assert self.go[frame].wait(TIMEOUT_S)
        self.said.append(f'end {frame}')
        if 'torn' in frame:
            raise RuntimeError(frame)

    def _on_error(self, index: int, error: Exception) -> None:
        self.said.append(f'{"abc"[index]}: {error}')


@pytest.mark.parametrize('beside', [True, False])
def test_the_next_pass_begins_beside_the_end_of_the_last_one_only_if_told_so(beside):
    desk = Desk(count=1, beside=beside)
    desk.put('a1')
    desk.until('begin a1')
    desk.put('a2')
    if beside:
        desk.until('pass a2')
    desk.rest()
    first, then = ['pass a2'], ['end a1']
    middle = first + then if beside else then + first
    assert desk.said == ['pass a1', 'begin a1', *middle, 'begin a2', 'end a2']


def test_a_mailbox_with_a_slow_end_holds_up_no_other_and_keeps_its_newest_frame():
    desk = Desk(count=2)
    desk.put('a1')
    desk.until('begin a1')
    desk.put('a2')
    desk.until('pass a2')
    for number in range(3, 7):  # nothing of `a` is taken, for it has two in hand
        desk.put(f'a{number}', f'b{number}')
        desk.go[f'b{number}'].set()
        desk.until(f'end b{number}')
    assert desk.mailboxes[0].in_hand == 2
    assert [said for said in desk.said if said.startswith('pass')] == [
        'pass a1', 'pass a2', 'pass b3', 'pass b4', 'pass b5', 'pass b6',
    ]  # fmt: skip
    desk.rest()
    ends = [said for said in desk.said if said.startswith('end a')]
    assert ends == ['end a1', 'end a2', 'end a6']
    assert desk.mailboxes[0].counts == Counts(received=6, processed=3, superseded=3)
    assert desk.mailboxes[1].counts == Counts(received=4, processed=4)


def test_who_was_held_up_comes_first_when_it_can_go_on():
    desk = Desk(count=3, limit=1)
    desk.put('a1')
    desk.until('begin a1')
    desk.put('a2')
    desk.until('pass a2')
    desk.put('a3', 'b1')
    desk.until('begin b1')
    desk.passing.clear()
    desk.put('c1')
    desk.until('pass c1')
    desk.put('b2', 'c2')
    desk.go['a1'].set()
    wait_for(lambda: desk.mailboxes[0].in_hand == 1)
    desk.passing.set()
    desk.rest()
    passes = [said.removeprefix('pass ') for said in desk.said if said.startswith('pass')]
    assert passes == ['a1', 'a2', 'b1', 'c1', 'a3', 'b2', 'c2']


def test_the_ends_of_different_mailboxes_are_at_the_same_time():
    desk = Desk(count=3)
    desk.put('a1', 'b1', 'c1')
    for name in 'abc':
        desk.until(f'begin {name}1')
    assert not any(said.startswith('end') for said in desk.said)
    desk.rest()


def test_errors_are_told_once_each_in_the_order_of_the_frames():
    desk = Desk(count=2)
    desk.put('a1 torn')
    desk.until('begin a1 torn')
    desk.put('a2 bad')
    desk.until('pass a2 bad')
    desk.put('b1')
    desk.until('begin b1')
    assert desk.mailboxes[0].counts.rejected == 0  # what came later does not end before
    desk.rest()
    assert [said for said in desk.said if said.startswith('a: ')] == ['a: a1 torn', 'a: a2 bad']
    assert desk.mailboxes[0].counts == Counts(received=2, rejected=2)
    assert desk.mailboxes[1].counts == Counts(received=1, processed=1)


def test_stopping_waits_for_every_end_and_leaves_no_thread():
    before = threading.active_count()
    desk = Desk(count=2)
    desk.put('a1', 'b1')
    desk.until('begin a1')
    desk.until('begin b1')
    desk.put('a2')
    desk.until('pass a2')
    desk.put('a3')
    stopping = threading.Thread(target=desk.worker.stop)
    stopping.start()
    wait_for(lambda: not desk.mailboxes[0].is_open)
    for frame in ('b1', 'a1', 'a2'):
        assert stopping.is_alive()
        desk.go[frame].set()
        desk.until(f'end {frame}')
    stopping.join(TIMEOUT_S)
    assert threading.active_count() == before
    assert desk.mailboxes[0].counts == Counts(received=3, processed=2, superseded=1)
    assert desk.mailboxes[1].counts == Counts(received=1, processed=1)


def test_abandoned_frames_are_superseded_all_of_them_and_not_counted_again():
    desk = Desk(count=1)
    desk.put('a1')
    desk.until('begin a1')
    desk.put('a2')
    desk.until('pass a2')
    desk.put('a3')
    (mailbox,) = desk.mailboxes
    mailbox.abandon()
    lost = Counts(received=3, superseded=3)
    assert mailbox.counts == lost
    desk.rest()
    assert mailbox.counts == lost
    assert desk.said[-1] == 'end a2'
