"""Shared by both heads: find the response tokens, make a tile of logits, sum the output weight's gradient."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from megatron.core.tensor_parallel.mappings import (
    copy_to_tensor_model_parallel_region,
    gather_from_sequence_parallel_region,
)
from torch import Tensor
from torch.distributed import ProcessGroup

# Elements that a tile's rows lie a multiple of apart: products and kernels then take 16 bytes at a time.
_ALIGNMENT = 64
# Of the weight's gradient: the product of a tile in bf16, before it is added in fp32, is not held for more rows.
ROWS_AT_ONCE = 16_384


@dataclass(frozen=True)
class ResponseTokens:
    """The tokens that are scored."""

    hidden_NH: Tensor
    labels_N: Tensor
    """Counted from this rank's first row of the output weight; another rank has those below 0 or from `rows` on."""
    response_N: Tensor
    """In [0, R), ascending."""
    rows: int
    """This rank's rows that are no padding of the vocabulary. Padding is last: what leaves its rows out of the product
    leaves them out of the softmax."""


def response_tokens(
    hidden_SBH: Tensor,
    output_weight_VH: Tensor,
    labels_BS: Tensor,
    response_index_BS: Tensor,
    *,
    vocab_size: int,
    tp_group: ProcessGroup,
    sequence_parallel: bool,
) -> ResponseTokens:
    """The positions whose response index is not negative; for the arguments see `recompute.response_logps`.

    Backward, the gradient of `hidden_NH` is this rank's share, which is summed over TP (with sequence parallelism,
    reduce-scattered).
    """
    if hidden_SBH.dtype != output_weight_VH.dtype:
        raise ValueError(f"hidden states are {hidden_SBH.dtype}, but the output weight is {output_weight_VH.dtype}")
    if sequence_parallel:
        hidden_SBH = gather_from_sequence_parallel_region(hidden_SBH, group=tp_group)
    else:
        hidden_SBH = copy_to_tensor_model_parallel_region(hidden_SBH, group=tp_group)
    row_N, position_N = (response_index_BS >= 0).nonzero().unbind(dim=1)
    response_N, order = response_index_BS[row_N, position_N].sort(stable=True)
    row_N, position_N = row_N[order], position_N[order]
    first_row = dist.get_rank(tp_group) * output_weight_VH.shape[0]
    return ResponseTokens(
        hidden_NH=hidden_SBH.flatten(0, 1).index_select(0, position_N * hidden_SBH.shape[1] + row_N),
        labels_N=labels_BS[row_N, position_N] - first_row,
        response_N=response_N,
        rows=min(max(vocab_size - first_row, 0), output_weight_VH.shape[0]),
    )


def logits_tile(hidden_CH: Tensor, rows_VH: Tensor) -> Tensor:
    """h w^T in its own dtype, [C, V]; a row begins a multiple of 16 bytes after the one before."""
    width = -(-len(rows_VH) // _ALIGNMENT) * _ALIGNMENT
    tile_CV = hidden_CH.new_empty(len(hidden_CH), width)[:, : len(rows_VH)]
    return torch.mm(hidden_CH, rows_VH.t(), out=tile_CV)


def add_weight_gradient(sum_VH: Tensor, grad_CV: Tensor, hidden_CH: Tensor) -> None:
    """Add grad^T h to the first rows of `sum_VH`, which is fp32."""
    for first in range(0, grad_CV.shape[1], ROWS_AT_ONCE):
        part = slice(first, min(first + ROWS_AT_ONCE, grad_CV.shape[1]))
        if grad_CV.dtype == torch.float32:
            torch.addmm(sum_VH[part], grad_CV[:, part].t(), hidden_CH, out=sum_VH[part])
        else:
            sum_VH[part] += grad_CV[:, part].t() @ hidden_CH
