"""A callback that tells the counters where training stands, and makes the ledger."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
from torch import Tensor

from tests.rehearsal.counters import counters
from tests.rehearsal.ledger import Ledger, Step, by_kind, step_of
from tests.rehearsal.memory import Kind, tensors_of
from tests.rehearsal.work import Place


class Watch(pl.Callback):
    """First of all callbacks: what the others say and wait for after a step belongs to the step."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._first_step = 0
        self._microbatches = 0
        self._before: dict[str, int] = {}
        self._steps: list[Step] = []

    @property
    def ledger(self) -> Ledger:
        return Ledger(self._key, self._microbatches, self._before, self._steps)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for optimizer in trainer.optimizers:
            megatron = optimizer.mcore_optimizer
            megatron.step = _of("optimizer", "layers", megatron.step)
        # What lies in reference cycles is freed between steps, at the same place in every process, whatever ran before.
        gc.disable()
        gc.collect()
        self._first_step = trainer.global_step
        self._classify(trainer)
        self._before = by_kind(counters.memory.live)

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        self._end_step(trainer)
        counters.start_step()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._end_step(trainer)

    def on_megatron_microbatches_start(self, step: Any) -> None:
        self._microbatches = step.num_microbatches
        counters.waits.is_in_microbatches = True
        counters.memory.start("activations")

    def on_megatron_microbatches_end(self, **_: Any) -> None:
        counters.waits.is_in_microbatches = False
        counters.memory.start("other")

    def _end_step(self, trainer: pl.Trainer) -> None:
        """After all callbacks of the step before."""
        if trainer.global_step > self._first_step + len(self._steps):
            gc.collect()
            self._classify(trainer)
            counters.memory.settle()
            self._steps.append(step_of(counters))

    @staticmethod
    def _classify(trainer: pl.Trainer) -> None:
        chunks = list(trainer.strategy.megatron_parallel)
        buffers = [buffer for chunk in chunks for buffer in getattr(chunk, "buffers", None) or [] if _is_buffer(buffer)]
        weights: list[Tensor] = [parameter for chunk in chunks for parameter in chunk.parameters()]
        weights += [buffer.param_data for buffer in buffers if buffer.param_data is not None]
        counters.memory.become("weights", weights)
        counters.memory.become("gradients", [buffer.grad_data for buffer in buffers])
        for optimizer in trainer.optimizers:
            for part in optimizer.mcore_optimizer.chained_optimizers:
                counters.memory.become("optimizer", _optimizer_state(part, weights))


def _is_buffer(value: Any) -> bool:
    return hasattr(value, "grad_data")


def _optimizer_state(part: Any, weights: list[Tensor]) -> list[Tensor]:
    """The fp32 copies of this rank's weights, and what the optimizer keeps of each."""
    storages = {weight.untyped_storage()._cdata for weight in weights}
    groups = [group["params"] for group in part.optimizer.param_groups]
    found = tensors_of(groups) + tensors_of([dict(state) for state in part.optimizer.state.values()])
    return [tensor for tensor in found if tensor.untyped_storage()._cdata not in storages]


def _of(kind: Kind, place: Place, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, whose tensors are of this kind and whose products are at this place."""

    def counted(*args: Any, **kwargs: Any) -> Any:
        with counters.memory.of_kind(kind), counters.work.at(place):
            return function(*args, **kwargs)

    return counted


def watch_head() -> None:
    """Count what both heads hold and compute apart, forward and backward."""
    from nemo_sspo.megatron.head import one_pass as one_pass_head
    from nemo_sspo.megatron.head import recompute as head
    from nemo_sspo.megatron.loss import loss as preference_loss

    for name in ("response_logps", "one_pass_logps"):
        setattr(preference_loss, name, _of("head", "head", getattr(preference_loss, name)))
    for function in (head.TokenLogps, one_pass_head.OnePass):
        function.backward = staticmethod(_of("head", "head", function.backward))


of_kind = _of
