"""`Watch` under NeMo's trainer."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import lightning.pytorch as pl

from tests.rehearsal.watch import Watch


class WatchNemo(pl.Callback):
    """First of all callbacks."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._schedule = ExitStack()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        (optimizer,) = trainer.optimizers
        self._watch.start(trainer.global_step, list(trainer.strategy.megatron_parallel), optimizer.mcore_optimizer)

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        self._watch.begin_step(trainer.global_step)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._watch.end_step(trainer.global_step)

    def on_megatron_microbatches_start(self, step: Any) -> None:
        self._schedule.enter_context(self._watch.microbatches(step.num_microbatches))

    def on_megatron_microbatches_end(self, **_: Any) -> None:
        self._schedule.close()


def watch_nemo(watch: Watch) -> None:
    """Have every trainer that is made from now on call `WatchNemo`."""
    from nemo_sspo.megatron.nemo import training

    make = training.trainer

    def watched(*args: Any, **kwargs: Any) -> Any:
        made = make(*args, **kwargs)
        made.callbacks.insert(0, WatchNemo(watch))
        return made

    training.trainer = watched
