"""State to resume a killed training step from: weights, optimizer, schedule and position, in the step's scratch.

NeMo's strategy writes and reads it (``torch_dist``); the pickled parts of it are this run's own, never a user's file.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import lightning.pytorch as pl
import torch.distributed as dist
from typing_extensions import override

_PREFIX = "step_"


def latest_state(scratch: Path) -> Path | None:
    """The newest complete state below `scratch`, or None."""
    complete = [path for path in scratch.glob(f"{_PREFIX}*") if path.name.removeprefix(_PREFIX).isdigit()]
    return max(complete, key=lambda path: int(path.name.removeprefix(_PREFIX)), default=None)


class SaveState(pl.Callback):
    """Saves the whole training state every `every` optimizer steps and keeps the newest one."""

    def __init__(self, scratch: Path, every: int) -> None:
        self._scratch = scratch
        self._every = every

    @override
    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        step = trainer.global_step
        if step % self._every or step >= trainer.max_steps:
            return
        partial = self._scratch / f".{_PREFIX}{step}.partial"
        if trainer.is_global_zero:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        dist.barrier()
        trainer.save_checkpoint(partial)
        dist.barrier()
        if trainer.is_global_zero:
            older = latest_state(self._scratch)
            os.rename(partial, self._scratch / f"{_PREFIX}{step}")
            if older is not None:
                shutil.rmtree(older, ignore_errors=True)
