"""NeMo's two hooks behind the forward pass: the processing of a microbatch's output and of a step's.

Only the last pipeline stage runs them. The mathematics is in `loss/loss.py` and, below that, in `objective/`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from megatron.core import parallel_state
from nemo.lightning.megatron_parallel import MegatronLossReduction
from torch import Tensor, nn
from typing_extensions import override

from nemo_sspo.megatron.batches.microbatch_plan import PreparedMicrobatch
from nemo_sspo.megatron.loss.hidden_states import output_weight
from nemo_sspo.megatron.loss.loss import (
    HeadLayout,
    PreferenceObjective,
    microbatch_logps,
    preference_loss,
    schedule_loss,
    sum_metrics,
)
from nemo_sspo.megatron.loss.metrics import PairMetrics
from nemo_sspo.megatron.models.finite import StepNumbers


def head_layout(
    *, vocab_size: int, chunk_tokens: int, sequence_parallel: bool, one_pass: bool, softcap: float | None
) -> HeadLayout:
    """The head's layout in Megatron's current process groups."""
    has_context = parallel_state.get_context_parallel_world_size() > 1
    return HeadLayout(
        vocab_size=vocab_size,
        chunk_tokens=chunk_tokens,
        sequence_parallel=sequence_parallel,
        tp_group=parallel_state.get_tensor_model_parallel_group(),
        cp_group=parallel_state.get_context_parallel_group() if has_context else None,
        one_pass=one_pass,
        softcap=softcap,
    )


def _before_setup() -> Tensor:
    raise RuntimeError("NeMo calls `setup` with the model chunk before it calls the loss reduction")


class _HeadReduction(MegatronLossReduction):
    """NeMo calls `setup` with the microbatch and its model chunk, then the object itself with the chunk's output."""

    def __init__(self, layout: HeadLayout) -> None:
        super().__init__()
        self.layout = layout
        self._weight_VH: Callable[[], Tensor] = _before_setup

    @override
    def setup(self, batch: PreparedMicrobatch, forward_module: nn.Module) -> None:
        self.batch = batch
        # A closure, because an attribute would make the model a submodule of its loss.
        self._weight_VH = lambda: output_weight(forward_module)


class PreferenceLossReduction(_HeadReduction):
    """Training: S-SPPO's objective of a microbatch; the global batch's means."""

    def __init__(
        self,
        objective: PreferenceObjective,
        repulsion_weight: Callable[[int], float],
        layout: HeadLayout,
        numbers: StepNumbers,
    ) -> None:
        """`repulsion_weight` gives lambda at a 0-based optimizer step; `numbers` records pairs with NaN or Inf."""
        super().__init__(layout)
        self.numbers = numbers
        self.objective = objective
        self.repulsion_weight = repulsion_weight

    @override
    def forward(self, batch: PreparedMicrobatch, forward_out: Tensor) -> tuple[Tensor, PairMetrics]:
        """`forward_out`: hidden states of the output layer's input. Returns the loss for the schedule, and metrics."""
        loss, metrics = preference_loss(
            forward_out,
            self._weight_VH(),
            batch.tensors,
            self.objective,
            self.layout,
            repulsion_weight=self.repulsion_weight(batch.step),
        )
        self.numbers.add(batch.rows, metrics.sound_P, metrics.gradient_squares)
        replicas = parallel_state.get_data_parallel_world_size()
        return schedule_loss(loss, num_microbatches=batch.of_step, data_parallel_size=replicas), metrics

    @override
    def reduce(self, losses_reduced_per_micro_batch: Sequence[PairMetrics]) -> dict[str, Any]:
        metrics = sum_metrics(losses_reduced_per_micro_batch, parallel_state.get_data_parallel_group())
        return {"loss": on_device(metrics["loss"]), "metrics": metrics}


class LogpReduction(_HeadReduction):
    """Reference: the summed log-probs of every pair's responses, and no loss."""

    @override
    def forward(self, batch: PreparedMicrobatch, forward_out: Tensor) -> tuple[Tensor, tuple[tuple[int, ...], Tensor]]:
        """Returns a zero loss, and the pairs' rows with their log-probs [pairs, 2]; filler pairs are left out."""
        logps_P2 = microbatch_logps(forward_out, self._weight_VH(), batch.tensors, self.layout)
        return logps_P2.new_zeros(()), (batch.rows, logps_P2[: len(batch.rows)].detach().cpu())

    @override
    def reduce(self, losses_reduced_per_micro_batch: Sequence[tuple[tuple[int, ...], Tensor]]) -> dict[str, Any]:
        return {"loss": on_device(0.0), "logps": list(losses_reduced_per_micro_batch)}


def on_device(loss: float) -> Tensor:
    """The last pipeline stage sends it to the first one, and NCCL has no way to send what is on the host."""
    return torch.tensor(loss, device=torch.cuda.current_device())
