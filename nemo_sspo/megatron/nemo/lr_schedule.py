"""The NeMo module that gives Lightning the learning-rate schedule."""

from __future__ import annotations

from typing import Any

from nemo.lightning.pytorch.optim.base import LRSchedulerModule
from torch.optim.lr_scheduler import LambdaLR

from nemo_sspo.config.stages import Train
from nemo_sspo.megatron.optimizer.learning_rate import schedule


class PolicyLRSchedule(LRSchedulerModule):
    """The schedule of a `Train` config."""

    def __init__(self, train: Train, steps_per_epoch: int) -> None:
        super().__init__()
        self._factor = schedule(train, steps_per_epoch)

    def scheduler(self, model: Any, optimizer: Any) -> dict[str, Any]:
        """Lightning's description of the schedule: one tick per optimizer step."""
        del model
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": LambdaLR(optimizer, self._factor), "interval": "step", "frequency": 1},
        }
