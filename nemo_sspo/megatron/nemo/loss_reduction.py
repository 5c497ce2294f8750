"""NeMo's two hooks behind the forward pass: the processing of a microbatch's output and of a step's.

Only the last pipeline stage runs them. What they call is in `loss/step.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from nemo.lightning.megatron_parallel import MegatronLossReduction
from torch import Tensor, nn
from typing_extensions import override

from nemo_sspo.megatron.batches.microbatch_plan import PreparedMicrobatch
from nemo_sspo.megatron.loss.hidden_states import output_weight
from nemo_sspo.megatron.loss.loss import HeadLayout
from nemo_sspo.megatron.loss.metrics import PairMetrics, sum_metrics
from nemo_sspo.megatron.loss.step import RowLogps, TrainingLoss, row_logps


def _before_setup() -> Tensor:
    raise RuntimeError("NeMo calls `setup` with the model chunk before it calls the loss reduction")


class _HeadReduction(MegatronLossReduction):
    """NeMo calls `setup` with the microbatch and its model chunk, then the object itself with the chunk's output."""

    def __init__(self) -> None:
        super().__init__()
        self._weight_VH: Callable[[], Tensor] = _before_setup

    @override
    def setup(self, batch: PreparedMicrobatch, forward_module: nn.Module) -> None:
        self.batch = batch
        # A closure, because an attribute would make the model a submodule of its loss.
        self._weight_VH = lambda: output_weight(forward_module)


class PreferenceLossReduction(_HeadReduction):
    """Training: S-SPPO's objective of a microbatch; the global batch's means."""

    def __init__(self, loss: TrainingLoss) -> None:
        super().__init__()
        self._loss = loss

    @override
    def forward(self, batch: PreparedMicrobatch, forward_out: Tensor) -> tuple[Tensor, PairMetrics]:
        """`forward_out`: hidden states of the output layer's input."""
        return self._loss(forward_out, self._weight_VH(), batch)

    @override
    def reduce(self, losses_reduced_per_micro_batch: Sequence[PairMetrics]) -> dict[str, Any]:
        metrics = sum_metrics(losses_reduced_per_micro_batch, self._loss.dp_group)
        return {"loss": on_device(metrics["loss"]), "metrics": metrics}


class LogpReduction(_HeadReduction):
    """Reference: the summed log-probs of every pair's responses, and no loss."""

    def __init__(self, head: HeadLayout) -> None:
        super().__init__()
        self._head = head

    @override
    def forward(self, batch: PreparedMicrobatch, forward_out: Tensor) -> tuple[Tensor, RowLogps]:
        """Returns a zero loss and the log-probs."""
        loss = forward_out.new_zeros((), dtype=torch.float32)
        return loss, row_logps(forward_out, self._weight_VH(), batch, self._head)

    @override
    def reduce(self, losses_reduced_per_micro_batch: Sequence[RowLogps]) -> dict[str, Any]:
        return {"loss": on_device(0.0), "logps": losses_reduced_per_micro_batch}


def on_device(loss: float) -> Tensor:
    """The last pipeline stage sends it to the first one, and NCCL has no way to send what is on the host."""
    return torch.tensor(loss, device=torch.cuda.current_device())
