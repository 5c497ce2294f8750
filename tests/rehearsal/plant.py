"""Plant something in a rank's training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def around_the_loss(change: Callable[[torch.Tensor], Any]) -> Callable[[], None]:
    """A fault in every microbatch, behind its loss."""

    def plant() -> None:
        from nemo_sspo.megatron.loss import step

        right = step.schedule_loss

        def wrong(loss: torch.Tensor, **sizes: int) -> torch.Tensor:
            change(loss.detach())
            return right(loss, **sizes)

        step.schedule_loss = wrong

    return plant
