"""`tile.TileMath` in plain torch, a few rows at a time: the whole tile in fp32 would take a second tile of memory.

Legend: P tokens of a part.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from nemo_sspo.megatron.head.normalizer import Normalizer

# Elements of a part. On a CPU it shall stay in a core's cache, elsewhere it shall be worth a launch.
ELEMENTS_ON_CPU, ELEMENTS_ELSEWHERE = 2**17, 2**24


def statistics(logits_CV: Tensor, labels_C: Tensor, softcap: float | None) -> tuple[Tensor, Tensor, Tensor]:
    maximum_C, total_C, target_C = torch.empty(3, len(logits_CV), device=logits_CV.device)
    for rows, y_PV in _parts_in_fp32(logits_CV):
        if softcap is not None:
            y_PV.div_(softcap).tanh_().mul_(softcap)
        is_local_P, column_P1 = _local_column(labels_C[rows], logits_CV.shape[1])
        target_C[rows] = torch.where(is_local_P, y_PV.gather(1, column_P1).squeeze(1), 0.0)
        maximum_P = y_PV.amax(dim=-1)
        maximum_C[rows] = maximum_P
        total_C[rows] = y_PV.sub_(maximum_P[:, None]).exp_().sum(dim=-1)
    return maximum_C, total_C, target_C


def to_gradient_(
    logits_CV: Tensor, labels_C: Tensor, dloss_dlogp_C: Tensor, of_all: Normalizer, softcap: float | None
) -> None:
    for rows, y_PV in _parts_in_fp32(logits_CV):
        derivative_PV: Tensor | None = None
        if softcap is not None:
            tanh_PV = y_PV.div_(softcap).tanh_()
            derivative_PV = softcap_derivative(tanh_PV)
            y_PV.mul_(softcap)
        dloss_dlogp_P = dloss_dlogp_C[rows]
        grad_PV = y_PV.sub_(of_all.maximum_C[rows, None]).exp_().mul_((-dloss_dlogp_P / of_all.total_C[rows])[:, None])
        is_local_P, column_P1 = _local_column(labels_C[rows], logits_CV.shape[1])
        grad_PV.scatter_add_(1, column_P1, torch.where(is_local_P, dloss_dlogp_P, 0.0)[:, None])
        if derivative_PV is not None:
            grad_PV.mul_(derivative_PV)
        logits_CV[rows] = grad_PV


def _parts_in_fp32(logits_CV: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Rows of the tile and a copy of them to write to, which is gone with the next one."""
    tokens, columns = logits_CV.shape
    elements = ELEMENTS_ON_CPU if logits_CV.device.type == "cpu" else ELEMENTS_ELSEWHERE
    size = min(max(elements // columns, 1), tokens)
    part_PV = torch.empty(size, columns, device=logits_CV.device)
    for first in range(0, tokens, size):
        rows = slice(first, min(first + size, tokens))
        yield rows, part_PV[: rows.stop - first].copy_(logits_CV[rows])


def softcap_derivative(tanh_PV: Tensor) -> Tensor:
    """d c tanh(x / c) / dx."""
    return tanh_PV.square().neg_().add_(1.0)


def _local_column(labels_P: Tensor, columns: int) -> tuple[Tensor, Tensor]:
    """Whether a label is one of these columns, and a valid column for it, [P, 1]."""
    is_local_P = (labels_P >= 0) & (labels_P < columns)
    return is_local_P, torch.where(is_local_P, labels_P, 0)[:, None]
