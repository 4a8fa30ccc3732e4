"""Messages of a few topics, taken and handled in a thread beside the executor.

For every message, rclpy's executor makes a new wait set of all that the node has, which takes
longer than handling it, and images of several cameras wait for each other in its one thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.event_handler import EventHandler
from rclpy.guard_condition import GuardCondition
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node
from rclpy.subscription import Subscription

from tag_perception.ros import wire

Callback = Callable[[Any, int], None]
"""Gets a message, and when it was published, in ns."""
ASK_NS = 10**9
"""After so long without a message the thread asks whether rclpy is still there."""


class Receiver:
    """Subscriptions with a thread that takes their messages and events, from `start` to `destroy`.

    Of messages that came together, those of the topic that was named first are handled first.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._handlers: list[tuple[Subscription[Any], Callback]] = []
        self._end = GuardCondition(None, None, node.context)
        self._ended = False
        self._thread = threading.Thread(target=self._run, name='receive', daemon=True)

    def subscribe(self, kind: type, topic: str, callback: Callback, **options: Any) -> Any:
        """As `Node.create_subscription`, but for the callback.

        With `raw` the callback gets a memoryview, taken without Python's lock.
        """
        subscription: Subscription[Any] = self._node.create_subscription(
            kind, topic, _never, callback_group=_Elsewhere(), **options
        )
        self._handlers.append((subscription, callback))
        return subscription

    def start(self) -> None:
        """Take messages from now on."""
        self._thread.start()

    def destroy(self) -> None:
        """Unsubscribe; after this no message is handled any more."""
        self._ended = True
        self._end.trigger()
        if self._thread.is_alive():
            self._thread.join()
        for subscription, _ in self._handlers:
            self._node.destroy_subscription(subscription)
        self._end.destroy()

    def _run(self) -> None:
        context, end = self._node.context, self._end.handle
        with ExitStack() as held:  # what is waited for is not destroyed meanwhile
            assert context.handle is not None
            subscriptions = [subscription for subscription, _ in self._handlers]
            events = [event for s in subscriptions for event in s.event_handlers]
            parts: list[Any] = [context.handle, end, *(s.handle for s in subscriptions), *events]
            for part in parts:
                held.enter_context(part)
            sizes = len(subscriptions), 1, 0, 0, 0, len(events)
            wait_set = rclpy_implementation.WaitSet(*sizes, context.handle)
            while not self._ended and context.ok():
                wait_set.clear_entities()
                for subscription in subscriptions:
                    wait_set.add_subscription(subscription.handle)
                wait_set.add_guard_condition(end)
                for event in events:
                    event.add_to_wait_set(wait_set)
                wait_set.wait(ASK_NS)
                ready = wait_set.get_ready_entities('subscription')
                for event in events:
                    if event.is_ready(wait_set):
                        self._attempt(_tell, event)
                for subscription, callback in self._handlers:
                    if subscription.handle.pointer in ready and not self._ended:
                        self._attempt(_deliver, subscription, callback)

    def _attempt(self, step: Callable[..., None], *arguments: Any) -> None:
        """Log what it raises: no message, be it no message at all, may end the thread."""
        try:
            step(*arguments)
        except Exception as error:
            text = f'a callback failed: {type(error).__name__}: {error}'
            self._node.get_logger().error(text, throttle_duration_sec=1.0)


def _deliver(subscription: Subscription[Any], callback: Callback) -> None:
    found = wire.take(subscription)
    if found is not None:
        callback(*found)


def _tell(event: EventHandler) -> None:
    what = event.take_data()
    if what is not None:
        event.callback(what)


class _Elsewhere(ReentrantCallbackGroup):
    """What the executor leaves alone: waiting for events only, it would wake for every message."""

    def can_execute(self, entity: Any) -> Any:
        return False


def _never(message: object) -> None:
    raise AssertionError('the receiver takes the messages')
