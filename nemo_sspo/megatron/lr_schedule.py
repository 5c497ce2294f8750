"""Learning rate over the optimizer steps: a pure function, and the NeMo module that hands it to Lightning."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from nemo.lightning.pytorch.optim.base import LRSchedulerModule
from torch.optim.lr_scheduler import LambdaLR

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


class PolicyLRSchedule(LRSchedulerModule):
    """The schedule of a `Train` config, laid out for `schedule_epochs` even where fewer epochs are trained."""

    def __init__(self, train: Train, steps_per_epoch: int) -> None:
        super().__init__()
        total = steps_per_epoch * (train.schedule_epochs or train.train_epochs)
        self._factor = partial(
            learning_rate_factor,
            total=total,
            warmup=math.ceil(train.warmup_fraction * total),
            floor=train.min_learning_rate / train.learning_rate,
            decay=train.lr_schedule,
        )

    def scheduler(self, model: Any, optimizer: Any) -> dict[str, Any]:
        """Lightning's description of the schedule: one tick per optimizer step."""
        del model
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": LambdaLR(optimizer, self._factor), "interval": "step", "frequency": 1},
        }
