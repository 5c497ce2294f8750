"""`tile.TileMath` in plain torch, a few rows at a time: the whole tile in fp32 would take a second tile of memory."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from nemo_sspo.megatron.head.normalizer import Normalizer

# Elements of a part. On a CPU it shall stay in a core's cache, elsewhere it shall be worth a launch.
ELEMENTS_ON_CPU, ELEMENTS_ELSEWHERE = 2**17, 2**24


def statistics(logits_CV: Tensor, labels_C: Tensor, softcap: float | None) -> tuple[Tensor, Tensor, Tensor]:
    maximum_C, total_C, target_C = torch.empty(3, len(logits_CV), device=logits_CV.device)
    for rows, y_CV in _parts_in_fp32(logits_CV):
        if softcap is not None:
            y_CV.div_(softcap).tanh_().mul_(softcap)
        is_local_C, column_C1 = _local_column(labels_C[rows], logits_CV.shape[1])
        target_C[rows] = torch.where(is_local_C, y_CV.gather(1, column_C1).squeeze(1), 0.0)
        largest_C = y_CV.amax(dim=-1)
        maximum_C[rows] = largest_C
        total_C[rows] = y_CV.sub_(largest_C[:, None]).exp_().sum(dim=-1)
    return maximum_C, total_C, target_C


def to_gradient_(
    logits_CV: Tensor, labels_C: Tensor, dloss_dlogp_C: Tensor, of_all: Normalizer, softcap: float | None
) -> None:
    for rows, y_CV in _parts_in_fp32(logits_CV):
        derivative_CV: Tensor | None = None
        if softcap is not None:
            tanh_CV = y_CV.div_(softcap).tanh_()
            derivative_CV = softcap_derivative(tanh_CV)
            y_CV.mul_(softcap)
        gradient_C = dloss_dlogp_C[rows]
        grad_CV = y_CV.sub_(of_all.maximum_C[rows, None]).exp_().mul_((-gradient_C / of_all.total_C[rows])[:, None])
        is_local_C, column_C1 = _local_column(labels_C[rows], logits_CV.shape[1])
        grad_CV.scatter_add_(1, column_C1, torch.where(is_local_C, gradient_C, 0.0)[:, None])
        if derivative_CV is not None:
            grad_CV.mul_(derivative_CV)
        logits_CV[rows] = grad_CV


def _parts_in_fp32(logits_CV: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Rows of the tile and a copy of them to write to, which is gone with the next one."""
    tokens, columns = logits_CV.shape
    elements = ELEMENTS_ON_CPU if logits_CV.device.type == "cpu" else ELEMENTS_ELSEWHERE
    size = min(max(elements // columns, 1), tokens)
    part_CV = torch.empty(size, columns, device=logits_CV.device)
    for first in range(0, tokens, size):
        rows = slice(first, min(first + size, tokens))
        yield rows, part_CV[: rows.stop - first].copy_(logits_CV[rows])


def softcap_derivative(tanh_CV: Tensor) -> Tensor:
    """d c tanh(x / c) / dx."""
    return tanh_CV.square().neg_().add_(1.0)


def _local_column(labels_C: Tensor, columns: int) -> tuple[Tensor, Tensor]:
    """Whether a label is one of these columns, and a valid column for it, [C, 1]."""
    is_local_C = (labels_C >= 0) & (labels_C < columns)
    return is_local_C, torch.where(is_local_C, labels_C, 0)[:, None]
