"""What failures of machines cost a training, and how often it should save its state (Young 1974, Daly 2006)."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Failures:
    """Of a training on all its GPUs."""

    hours_between: float
    """Mean time between failures."""
    save_seconds: float
    """For which a state that is written in the background holds training up."""
    interval_seconds: float
    """Between states, with which least is lost: sqrt(2 x save_seconds x time between failures)."""
    lost_share: float
    """Of the training's time: saving, work done again, and starting again."""

    def steps_between_states(self, step_seconds: float) -> int:
        """For ``train.checkpoint_every_steps``."""
        return max(1, round(self.interval_seconds / step_seconds))


def failures(
    state_bytes: int, gpus: int, *, per_gpu_hour: float, to_host: float, restart_seconds: float
) -> Failures | None:
    """None where nothing fails.

    Args:
        state_bytes: of a state to resume from, over all ranks.
        per_gpu_hour: failures of one GPU and what it needs.
        to_host: bytes/s of one GPU, with which its share of the state gets out of the way.
        restart_seconds: from a failure to the first new step.
    """
    if per_gpu_hour <= 0:
        return None
    between = 3600 / (per_gpu_hour * gpus)
    save = state_bytes / gpus / to_host
    interval = math.sqrt(2 * save * between)
    lost = save / interval + interval / (2 * between) + restart_seconds / between
    return Failures(between / 3600, save, interval, lost)
