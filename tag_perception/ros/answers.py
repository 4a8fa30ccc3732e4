"""Whether a perception node got an image, and whether its results are out: ask the node itself.

Results announce themselves on `~/vision_info`, the last topic of a frame. What has none was either
rejected or lost on the way: the node's own counts on /diagnostics tell which.
"""

from __future__ import annotations

from typing import Literal

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from vision_msgs.msg import VisionInfo

LOST_AFTER = 4
"""Messages on /diagnostics, one a second, that do not count an image: the node never got it."""

Fate = Literal['unknown', 'answered', 'finished', 'lost']
"""answered: its results are out; finished: the node has done with it, results may yet come."""


class Answers:
    """Listens to one node for the fate of one image at a time."""

    def __init__(self, node: Node, perception: str) -> None:
        self._perception = perception
        self._node = node
        self._stamp = b''
        self._answered = False
        self._expected: int | None = None
        self._received = self._under_way = self._silent = 0
        self._results = node.create_subscription(
            VisionInfo, f'{perception}/vision_info', self._on_result, 10, raw=True
        )
        self._diagnostics = node.create_subscription(
            DiagnosticArray, '/diagnostics', self._on_diagnostics, 10
        )

    def connected(self) -> bool:
        """Whether the node is there and has told how many frames it knows."""
        return self._results.get_publisher_count() > 0 and self._expected is not None

    def expect(self, image: bytes) -> None:
        """A serialized image is about to be sent."""
        assert self._expected is not None, 'not connected'
        # An image that was sent twice may have been counted twice.
        self._expected = max(self._expected, self._received) + 1
        self._stamp, self._answered, self._silent = image[4:12], False, 0

    def again(self) -> None:
        """The same image is about to be sent once more."""
        self._silent = 0

    def fate(self) -> Fate:
        """What is known of the image by now."""
        if self._answered:
            return 'answered'
        if self._expected is not None and self._received >= self._expected:
            return 'unknown' if self._under_way else 'finished'
        return 'lost' if self._silent >= LOST_AFTER else 'unknown'

    def close(self) -> None:
        """Stop listening."""
        self._node.destroy_subscription(self._results)
        self._node.destroy_subscription(self._diagnostics)

    def _on_result(self, message: bytes) -> None:
        # After four bytes about the encoding comes the header, and first in it the stamp.
        self._answered |= message[4:12] == self._stamp

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == f'{self._perception}: frames':
                values = {entry.key: entry.value for entry in status.values}
                self._received = int(values['received'])
                self._under_way = int(values['under_way'])
                self._silent += 1
                if self._expected is None:
                    self._expected = self._received
