"""Plant something in a rank's training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def around_the_loss(change: Callable[[torch.Tensor], Any]) -> Callable[[], None]:
    """A fault in every microbatch, behind its loss."""

    def plant() -> None:
        from nemo_sspo.megatron.nemo import loss_reduction

        right = loss_reduction.schedule_loss

        def wrong(loss: torch.Tensor, **sizes: int) -> torch.Tensor:
            change(loss.detach())
            return right(loss, **sizes)

        loss_reduction.schedule_loss = wrong

    return plant
