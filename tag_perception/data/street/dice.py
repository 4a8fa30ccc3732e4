"""A fast seeded source of chance for laying out streets."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import TypeVar

Item = TypeVar('Item')


def every(start: float, stop: float, step: float) -> list[float]:
    """start, start + step, … below stop."""
    return [start + i * step for i in range(max(0, math.ceil((stop - start) / step)))]


class Dice(random.Random):
    """Python's generator, whose scalar draws cost a tenth of NumPy's, and the draws we need."""

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.random() < probability

    def pick(self, options: Sequence[Item]) -> Item:
        """One of the options, all alike."""
        return options[int(self.random() * len(options))]

    def weighted(self, shares: Mapping[Item, float]) -> Item:
        """One of the keys, in proportion to its value."""
        left = self.random() * sum(shares.values())
        for item, share in shares.items():
            left -= share
            if left < 0:
                return item
        return item

    def whole(self, low: int, high: int) -> int:
        """An integer low ≤ n < high."""
        return low + int(self.random() * (high - low))

    def exponential(self, mean: float) -> float:
        """Waiting time of this mean."""
        return -mean * math.log(1 - self.random())

    def poisson(self, mean: float) -> int:
        """Number of rare events of this mean."""
        count, left = 0, self.random()
        limit = math.exp(-mean)
        while left > limit:
            left *= self.random()
            count += 1
        return count

    def scattered(self, low: float, high: float, count: int) -> list[float]:
        """`count` numbers from low … high."""
        return [self.uniform(low, high) for _ in range(count)]
