"""The learning rate of every optimizer step: pure functions of the settings and of the number of steps.

Not torch's SequentialLR: it finds each rate from the one before it, which differs from these in its last bits, and a
dry run, which has no torch, asks for the highest rate.
"""

import math
from collections.abc import Callable
from functools import partial

from nemo_sspo.config.stages import Train


def learning_rate_factor(step: int, *, total: int, warmup: int, floor: float, decay: str) -> float:
    """Share of the peak learning rate at a 0-based step of a schedule of `total` steps.

    Linear warm-up over `warmup` steps whose first is not wasted at 0, then `decay` ("linear", "cosine", "constant")
    towards `floor`, which is reached where step `total` would begin.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if decay == "constant":
        return 1.0
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    shape = 1.0 - progress if decay == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))
    return floor + (1.0 - floor) * shape


def schedule(train: Train, steps_per_epoch: int) -> Callable[[int], float]:
    """The factor of every step, laid out for `schedule_epochs` even where fewer epochs are trained."""
    total = steps_per_epoch * (train.schedule_epochs or train.train_epochs)
    return partial(
        learning_rate_factor,
        total=total,
        warmup=_warmup(train, total),
        floor=train.min_learning_rate / train.learning_rate,
        decay=train.lr_schedule,
    )


def highest_factor(train: Train, steps_per_epoch: int) -> float:
    """The largest factor of a step that is trained; below 1 where training ends in the warm-up."""
    total = steps_per_epoch * (train.schedule_epochs or train.train_epochs)
    last = steps_per_epoch * train.train_epochs - 1
    return schedule(train, steps_per_epoch)(min(last, _warmup(train, total)))


def _warmup(train: Train, total: int) -> int:
    return math.ceil(train.warmup_fraction * total)
