"""Subscriptions to serialised messages that leave Python's lock to others while they take one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.executors import await_or_execute
from rclpy.node import Node
from rclpy.subscription import Subscription
from rclpy.waitable import NumberOfEntities, Waitable

from tag_perception.ros import wire

Callback = Callable[[memoryview, int], None]
"""Gets the message, and when it was published, in ns."""


class Receiver(Waitable[Any]):
    """A subscription whose messages the executor waits for, and `wire.take` fetches."""

    def __init__(
        self, node: Node, kind: type, topic: str, callback: Callback, **options: Any
    ) -> None:
        """As `Node.create_subscription`, but for the callback."""
        super().__init__(node.default_callback_group)
        self.subscription: Subscription[Any] = node.create_subscription(
            kind, topic, _never, raw=True, callback_group=_OnlyEvents(), **options
        )
        self._node, self._callback = node, callback
        self._index: int | None = None
        node.add_waitable(self)

    def destroy(self) -> None:
        """Unsubscribe."""
        self._node.remove_waitable(self)
        self._node.destroy_subscription(self.subscription)

    def __enter__(self) -> None:
        self.subscription.handle.__enter__()

    def __exit__(self, *exception: Any) -> None:
        self.subscription.handle.__exit__(*exception)

    def get_num_entities(self) -> NumberOfEntities:
        """What a wait set needs room for."""
        return NumberOfEntities(num_subs=1)

    def add_to_wait_set(self, wait_set: Any) -> None:
        """Wait for a message."""
        self._index = wait_set.add_subscription(self.subscription.handle)

    def is_ready(self, wait_set: Any) -> bool:
        """Whether there is one."""
        return self._index is not None and wait_set.is_ready('subscription', self._index)

    def take_data(self) -> tuple[memoryview, int] | None:
        """The message; None where it is gone again."""
        return wire.take(self.subscription)

    async def execute(self, taken_data: tuple[memoryview, int] | None) -> None:
        """Hand it over."""
        if taken_data is not None:
            await await_or_execute(self._callback, *taken_data)


class _OnlyEvents(ReentrantCallbackGroup):
    """Lets the executor handle the events of a subscription, and not its messages."""

    def can_execute(self, entity: Any) -> Any:
        return not isinstance(entity, Subscription)


def _never(message: bytes) -> None:
    raise AssertionError('the receiver takes the messages')
