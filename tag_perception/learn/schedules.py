"""Learning rate schedules: the factor of the base rate at a step."""

from __future__ import annotations

import math
from bisect import bisect_right

from tag_perception.learn.configuration import ScheduleConfig


def rate_factor(config: ScheduleConfig, step: int, steps: int) -> float:
    """Factor of the learning rate at `step` (from 0) of a training of `steps`."""
    progress = min(max(step / max(steps, 1), 0.0), 1.0)
    if config.kind == 'poly':  # paper section IV-D
        factor = (1 - progress) ** config.power
    elif config.kind == 'cosine':
        factor = (1 + math.cos(math.pi * progress)) / 2
    elif config.kind == 'steps':
        factor = config.gamma ** bisect_right(config.milestones, progress)
    else:
        factor = 1.0
    if step < config.warmup:
        factor *= (step + 1) / (config.warmup + 1)
    return factor
