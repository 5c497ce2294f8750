"""What a trainer's loop calls on the last pipeline stage: the loss or the log-probs of a microbatch.

The mathematics is in `loss.py` and, below that, in `objective/`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

from nemo_sspo.megatron.batches.microbatch import context_parallel_slice
from nemo_sspo.megatron.batches.microbatch_plan import PreparedMicrobatch
from nemo_sspo.megatron.loss.loss import (
    HeadLayout,
    PreferenceObjective,
    microbatch_logps,
    preference_loss,
    schedule_loss,
)
from nemo_sspo.megatron.loss.metrics import PairMetrics
from nemo_sspo.megatron.models.finite import StepPairs


def on_this_rank(microbatch: PreparedMicrobatch, cp_group: ProcessGroup) -> PreparedMicrobatch:
    """The microbatch on this rank's device, cut to its part of the sequence under context parallelism."""
    tensors = context_parallel_slice(microbatch.tensors, dist.get_rank(cp_group), dist.get_world_size(cp_group))
    return replace(microbatch, tensors=tensors.to(torch.cuda.current_device()))


@dataclass(frozen=True)
class TrainingLoss:
    """The loss of a microbatch as Megatron's schedule wants it."""

    objective: PreferenceObjective
    repulsion_weight: Callable[[int], float]
    """lambda at a 0-based optimizer step."""
    head: HeadLayout
    dp_group: ProcessGroup
    step_pairs: StepPairs
    """Records pairs with NaN or Inf."""

    def __call__(
        self, hidden_SBH: Tensor, weight_VH: Tensor, microbatch: PreparedMicrobatch
    ) -> tuple[Tensor, PairMetrics]:
        """From the output layer's input and weight. Returns `schedule_loss` and what `sum_metrics` takes."""
        loss, metrics = preference_loss(
            hidden_SBH,
            weight_VH,
            microbatch.tensors,
            self.objective,
            self.head,
            repulsion_weight=self.repulsion_weight(microbatch.step),
        )
        self.step_pairs.add(microbatch.rows, metrics.sound_P, metrics.gradient_squares)
        replicas = dist.get_world_size(self.dp_group)
        return schedule_loss(loss, num_microbatches=microbatch.num_microbatches, data_parallel_size=replicas), metrics


RowLogps = tuple[tuple[int, ...], Tensor]
"""Rows of the pairs table, and their summed log-probs, [rows, 2] (chosen, rejected) fp32 on the host."""


def row_logps(hidden_SBH: Tensor, weight_VH: Tensor, microbatch: PreparedMicrobatch, head: HeadLayout) -> RowLogps:
    """From the output layer's input and weight, without gradients; filler pairs are left out."""
    logps_P2 = microbatch_logps(hidden_SBH, weight_VH, microbatch.tensors, head)
    return microbatch.rows, logps_P2[: len(microbatch.rows)].detach().cpu()
