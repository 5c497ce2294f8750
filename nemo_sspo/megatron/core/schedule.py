"""The microbatches of one optimizer step through Megatron's pipeline schedule."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch.distributed as dist
from megatron.core.pipeline_parallel import get_forward_backward_func
from torch import Tensor, nn

from nemo_sspo.megatron.batches.microbatch_plan import MicrobatchPlan, PreparedMicrobatch
from nemo_sspo.megatron.loss.hidden_states import forward_to_hidden_states, output_weight
from nemo_sspo.megatron.loss.step import on_this_rank
from nemo_sspo.megatron.models.finite import StepPairs
from nemo_sspo.megatron.runtime.groups import Groups

T = TypeVar("T")
Processing = Callable[[Tensor, Tensor, PreparedMicrobatch], tuple[Tensor, T]]
"""(hidden states [S, B, H], output weight [V, H], microbatch) -> loss and what is kept of a microbatch."""


@dataclass(frozen=True)
class Schedule:
    """Runs the chunks of this rank over the microbatches of a plan."""

    chunks: Sequence[nn.Module]
    plan: MicrobatchPlan
    groups: Groups
    step_pairs: StepPairs

    def run(self, step: int, processing: Processing[T], *, forward_only: bool = False) -> list[T]:
        """Forward and backward over a step, counted from 0. Returns what `processing` has kept of each microbatch, on
        the last pipeline stage, and nothing on the others. Collective."""
        rows = self.plan.rows_of(step, dist.get_rank(self.groups.dp))
        iterators = [self._microbatches(step, rows) for _ in self.chunks]
        interleaved = self.plan.parallel.virtual_pipeline is not None
        return get_forward_backward_func()(
            forward_step_func=partial(_forward, processing),
            data_iterator=iterators if interleaved else iterators[0],
            model=list(self.chunks) if interleaved else self.chunks[0],
            num_microbatches=len(rows),
            seq_length=self.plan.row_length(step),
            micro_batch_size=self.plan.rows_per_microbatch,
            forward_only=forward_only,
        )

    def _microbatches(self, step: int, rows: Sequence[tuple[int, ...]]) -> Iterator[PreparedMicrobatch]:
        for of_microbatch in rows:
            self.step_pairs.begin(step, of_microbatch)
            built = self.plan.build(step, of_microbatch, len(rows), self.plan.row_length(step))
            yield on_this_rank(built, self.groups.cp)


def _forward(
    processing: Processing[T], microbatches: Iterator[PreparedMicrobatch], chunk: nn.Module
) -> tuple[Tensor, Callable[[Tensor], tuple[Tensor, T]]]:
    """What the schedule asks of a chunk; the second part is called on the last stage alone."""
    microbatch = next(microbatches)
    hidden_SBH = forward_to_hidden_states(chunk, microbatch.tensors)
    return hidden_SBH, lambda hidden_SBH: processing(hidden_SBH, output_weight(chunk), microbatch)
