"""Tells the counters where training stands, and makes the ledger."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch.distributed as dist
from torch import Tensor

from nemo_sspo.megatron.binding import Observer
from tests.rehearsal.counters import counters
from tests.rehearsal.ledger import Ledger, Step, by_kind, step_of
from tests.rehearsal.memory import Kind, tensors_of
from tests.rehearsal.work import Place


class Watch:
    """Tells the counters where a training stands. What observers say and wait for after a step belongs to the step."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._first_step = 0
        self._microbatches = 0
        self._before: dict[str, int] = {}
        self._steps: list[Step] = []

    @property
    def ledger(self) -> Ledger:
        return Ledger(self._key, self._microbatches, self._before, self._steps)

    def start(self, step: int, chunks: Sequence[Any], optimizer: Any) -> None:
        """Before the first step of an attempt; `optimizer` is Megatron's, `chunks` those that it trains."""
        optimizer.step = of_kind("optimizer", "layers", optimizer.step)
        # What lies in reference cycles is freed between steps, at the same place in every process, whatever ran before.
        gc.disable()
        gc.collect()
        self._first_step = step
        self._chunks, self._optimizer = chunks, optimizer
        self._classify()
        self._before = by_kind(counters.memory.live)

    def begin_step(self, step: int) -> None:
        """`step` steps are done, and another one begins."""
        self.end_step(step)
        counters.start_step()

    def end_step(self, step: int) -> None:
        """After all that belongs to the step before."""
        if step > self._first_step + len(self._steps):
            gc.collect()
            self._classify()
            counters.memory.settle()
            self._steps.append(step_of(counters))

    @contextmanager
    def microbatches(self, count: int) -> Iterator[None]:
        """Around a step's schedule."""
        self._microbatches = count
        counters.waits.is_in_microbatches = True
        counters.memory.start("activations")
        yield
        counters.waits.is_in_microbatches = False
        counters.memory.start("other")

    def _classify(self) -> None:
        buffers = [
            buffer
            for chunk in self._chunks
            for name in ("buffers", "expert_parallel_buffers")
            for buffer in getattr(chunk, name, None) or []
            if _is_buffer(buffer)
        ]
        weights: list[Tensor] = [parameter for chunk in self._chunks for parameter in chunk.parameters()]
        weights += [buffer.param_data for buffer in buffers if buffer.param_data is not None]
        counters.memory.become("weights", weights)
        counters.memory.become("gradients", [buffer.grad_data for buffer in buffers])
        for part in self._optimizer.chained_optimizers:
            counters.memory.become("optimizer", _optimizer_state(part, weights))


class WatchCore(Observer):
    """First of all observers; the loop itself has no hooks before a step and around its schedule."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def on_start(self, training: Any) -> None:
        take_step, run, watch = training.take_step, type(training.schedule).run, self._watch

        def watched_step() -> None:
            watch.begin_step(training.step)
            take_step()

        def watched_run(schedule: Any, step: int, *args: Any, **kwargs: Any) -> Any:
            replica = dist.get_rank(schedule.groups.dp)
            with watch.microbatches(len(schedule.plan.rows_of(step, replica))):
                return run(schedule, step, *args, **kwargs)

        training.take_step = watched_step
        type(training.schedule).run = watched_run
        watch.start(training.step, training.chunks, training.optimizer)

    def on_end(self, training: Any, error: BaseException | None) -> None:
        self._watch.end_step(training.step)


def _is_buffer(value: Any) -> bool:
    return hasattr(value, "grad_data")


def _optimizer_state(part: Any, weights: list[Tensor]) -> list[Tensor]:
    """The fp32 copies of this rank's weights, and what the optimizer keeps of each."""
    storages = {weight.untyped_storage()._cdata for weight in weights}
    groups = [group["params"] for group in part.optimizer.param_groups]
    found = tensors_of(groups) + tensors_of([dict(state) for state in part.optimizer.state.values()])
    return [tensor for tensor in found if tensor.untyped_storage()._cdata not in storages]


def of_kind(kind: Kind, place: Place, function: Callable[..., Any]) -> Callable[..., Any]:
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
        setattr(preference_loss, name, of_kind("head", "head", getattr(preference_loss, name)))
    for function in (head.TokenLogps, one_pass_head.OnePass):
        function.backward = staticmethod(of_kind("head", "head", function.backward))
