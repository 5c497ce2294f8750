"""`softmax_tile.TileMath` in plain torch, some rows of the tile at a time: fp32 of all of it would be a second tile."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from nemo_sspo.megatron.softmax_tile import Normalizer

# 1 MiB in fp32, of which there are two or three: what a core's cache holds.
_ELEMENTS_AT_ONCE = 2**18


def statistics(logits_CV: Tensor, labels_C: Tensor, softcap: float | None) -> tuple[Tensor, Tensor, Tensor]:
    maximum_C, total_C, target_C = torch.empty(3, len(logits_CV), device=logits_CV.device)
    for rows in _parts(logits_CV):
        logits_PV, _ = _capped(logits_CV[rows], softcap)
        is_local_P, column_P1 = _local_column(labels_C[rows], logits_CV.shape[1])
        target_C[rows] = torch.where(is_local_P, logits_PV.gather(1, column_P1).squeeze(1), 0.0)
        maximum_P = logits_PV.amax(dim=-1)
        maximum_C[rows] = maximum_P
        total_C[rows] = (logits_PV - maximum_P[:, None]).exp_().sum(dim=-1)
    return maximum_C, total_C, target_C


def to_gradient_(
    logits_CV: Tensor, labels_C: Tensor, slope_C: Tensor, of_all: Normalizer, softcap: float | None
) -> None:
    for rows in _parts(logits_CV):
        logits_PV, derivative_PV = _capped(logits_CV[rows], softcap)
        slope_P = slope_C[rows]
        grad_PV = (logits_PV - of_all.maximum_C[rows, None]).exp_()
        grad_PV.mul_((-slope_P / of_all.total_C[rows])[:, None])
        is_local_P, column_P1 = _local_column(labels_C[rows], logits_CV.shape[1])
        grad_PV.scatter_add_(1, column_P1, torch.where(is_local_P, slope_P, 0.0)[:, None])
        if derivative_PV is not None:
            grad_PV.mul_(derivative_PV)
        logits_CV[rows] = grad_PV


def _parts(logits_CV: Tensor) -> Iterator[slice]:
    tokens, columns = logits_CV.shape
    size = max(_ELEMENTS_AT_ONCE // columns, 1)
    return (slice(first, first + size) for first in range(0, tokens, size))


def _capped(logits_PV: Tensor, softcap: float | None) -> tuple[Tensor, Tensor | None]:
    """y and dy/dx in fp32; without a cap the logits themselves, not to be written to, and None for 1."""
    if softcap is None:
        return logits_PV.float(), None
    tanh_PV = torch.div(logits_PV.float(), softcap).tanh_()
    return tanh_PV * softcap, tanh_PV.square_().neg_().add_(1.0)


def _local_column(labels_P: Tensor, columns: int) -> tuple[Tensor, Tensor]:
    """Whether a label is one of these columns, and a valid column for it, [P, 1]."""
    is_local_P = (labels_P >= 0) & (labels_P < columns)
    return is_local_P, torch.where(is_local_P, labels_P, 0)[:, None]
