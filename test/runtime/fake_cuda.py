"""Enough of torch.cuda to run the CUDA engine on the CPU, graphs included.

A graph notes the operations of its capture with the tensors they read and wrote, and does them
again with the same memory. As on a GPU, a captured operation may not hand values to the host.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

HOST_ONLY = {
    torch.ops.aten._local_scalar_dense.default: 'hands a number to the host',
    torch.ops.aten.nonzero.default: 'waits for a number of results',
    torch.ops.aten.masked_select.default: 'waits for a number of results',
    torch.ops.aten.lift_fresh.default: 'makes a tensor of numbers that the host has',
}
"""What a GPU refuses while it captures."""


class FakeCuda:
    """What was asked of it; `refuse` may raise at the begin of a capture."""

    def __init__(self) -> None:
        self.replays = 0
        self.pools: list[object] = []
        """In the order in which they were made."""
        self.captured_in: list[object] = []
        """The pool of each capture."""
        self.refuse: Callable[[], None] = lambda: None
        self.capture: Capture | None = None
        """The one under way."""

    def new_pool(self) -> object:
        self.pools.append(object())
        return self.pools[-1]

    @contextmanager
    def graph(self, graph: Graph, pool: object, stream: object, **_: object) -> Iterator[None]:
        self.refuse()
        self.captured_in.append(pool)
        self.capture = Capture()
        try:
            with self.capture:
                yield
            graph.steps = self.capture.steps
        finally:
            self.capture = None


class Capture(TorchDispatchMode):
    """Notes all operations, as steps that can be done again."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Callable[[], None]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        assert func not in HOST_ONLY, f'{func} {HOST_ONLY[func]}'
        kwargs = kwargs or {}
        results = func(*args, **kwargs)

        def again() -> None:
            news = tree_leaves(func(*args, **kwargs))
            for old, new in zip(tree_leaves(results), news, strict=True):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)

        self.steps.append(again)
        return results


class Graph:
    def __init__(self, cuda: FakeCuda) -> None:
        self._cuda, self.steps = cuda, []

    def replay(self) -> None:
        self._cuda.replays += 1
        for step in self.steps:
            step()


class Event:
    """A moment; recorded in a capture, it is the moment of the replay."""

    def __init__(self, cuda: FakeCuda) -> None:
        self._cuda, self._ms = cuda, None

    def record(self, stream: object) -> None:
        if self._cuda.capture is None:
            self._happen()
        else:
            self._cuda.capture.steps.append(self._happen)

    def elapsed_time(self, later: Event) -> float:
        assert self._ms is not None
        assert later._ms is not None
        return later._ms - self._ms

    def _happen(self) -> None:
        self._ms = time.perf_counter() * 1e3


class Stream:
    def synchronize(self) -> None:
        pass

    def wait_stream(self, other: Stream) -> None:
        pass

    def wait_event(self, event: Event) -> None:
        pass


@pytest.fixture
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    fake = FakeCuda()
    for name, stand_in in {
        'Stream': lambda device=None: Stream(),
        'current_stream': Stream,
        'Event': lambda **_: Event(fake),
        'CUDAGraph': lambda: Graph(fake),
        'graph': fake.graph,
        'graph_pool_handle': fake.new_pool,
        'device': nullcontext,
        'stream': nullcontext,
        'synchronize': lambda device=None: None,
        'empty_cache': lambda: None,
    }.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    for name in ('empty', 'ones', 'zeros'):  # there is no pinned memory without a GPU
        monkeypatch.setattr(torch, name, _pageable(getattr(torch, name)))
    return fake


def _pageable(make: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    return lambda *size, pin_memory=False, **options: make(*size, **options)
