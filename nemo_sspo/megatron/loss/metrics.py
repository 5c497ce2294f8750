"""Metrics of a step: means over the global batch's pairs, which loss term dominates, how collapsed the states are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

from nemo_sspo.megatron.loss.metric_names import MEANS, METRICS


@dataclass(frozen=True)
class PairMetrics:
    """One microbatch's part. Nothing here carries a gradient."""

    sums: Tensor
    """[len(MEANS) + 1] fp32: sums of the pairs' values, weighted as in the loss, and the number of pairs."""
    gradient_squares: Tensor
    """[2] fp32, filled by the backward pass: squared norms of the gradient of the preference loss and of the repulsion
    with respect to the hidden states of this rank."""
    states_RH: Tensor
    """Pooled unit states, fp32; zero for filler pairs."""
    sequence_groups: tuple[ProcessGroup, ...]
    """Groups whose ranks hold different tokens of the same pairs."""
    sound_P: Tensor
    """Whether all values of a pair are finite: log-probs, targets and losses."""


PREFERENCE, REPULSION = 0, 1


class _Measured(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, squares: Tensor, slot: int) -> Tensor:
        ctx.squares, ctx.slot = squares, slot
        return hidden.view_as(hidden)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        ctx.squares[ctx.slot] += torch.linalg.vector_norm(grad, dtype=torch.float32).square()
        return grad, None, None


def measure_gradient(hidden: Tensor, squares: Tensor, slot: int) -> Tensor:
    """`hidden` itself; its gradient's squared norm is added to `squares[slot]` when backward passes here."""
    return _Measured.apply(hidden, squares, slot)


def sum_metrics(metrics: Sequence[PairMetrics], dp_group: ProcessGroup) -> dict[str, float]:
    """The global batch's metrics, by the names in `METRICS`, from this rank's microbatches of a step.

    Call it after the schedule has run, on all ranks of the last pipeline stage. `dp_group` is without context
    parallelism: the ranks of a CP group hold equal sums already.
    """
    sums = torch.stack([part.sums for part in metrics]).sum(dim=0)
    squares = torch.stack([part.gradient_squares for part in metrics]).sum(dim=0)
    dist.all_reduce(sums, group=dp_group)
    for group in (dp_group, *metrics[0].sequence_groups):
        dist.all_reduce(squares, group=group)
    preference, repulsion = squares.tolist()
    return dict(zip((*MEANS, "pairs"), sums.tolist(), strict=True)) | {
        "gradient_ratio": math.sqrt(repulsion / preference) if preference > 0 else 0.0,
        "effective_rank": effective_rank(_gather_rows(torch.cat([part.states_RH for part in metrics]), dp_group)),
    }


def share_metrics(metrics: Mapping[str, float] | None, pp_group: ProcessGroup) -> dict[str, float]:
    """A step's metrics on every rank, from the last stage of its pipeline; None on the others. Collective."""
    values = [0.0] * len(METRICS) if metrics is None else [metrics[name] for name in METRICS]
    shared = torch.tensor(values, dtype=torch.float64, device=torch.cuda.current_device())
    dist.broadcast(shared, group=pp_group, group_src=dist.get_world_size(pp_group) - 1)
    return dict(zip(METRICS, shared.tolist(), strict=True))


def effective_rank(states_RH: Tensor) -> float:
    """exp(entropy) of the singular values divided by their sum. Zero rows do not change it."""
    values = torch.linalg.eigvalsh(states_RH.double() @ states_RH.double().T).clamp(min=0).sqrt()
    shares = values / values.sum()
    return torch.special.entr(shares).sum().exp().item()


def _gather_rows(rows_RH: Tensor, group: ProcessGroup) -> Tensor:
    """Rows of all ranks of the group; ranks with fewer rows are filled up with zeros."""
    most = torch.tensor(len(rows_RH), device=rows_RH.device)
    dist.all_reduce(most, op=dist.ReduceOp.MAX, group=group)
    padded = rows_RH.new_zeros(int(most), rows_RH.shape[1])
    padded[: len(rows_RH)] = rows_RH
    parts = [torch.empty_like(padded) for _ in range(dist.get_world_size(group))]
    dist.all_gather(parts, padded, group=group)
    return torch.cat(parts)
