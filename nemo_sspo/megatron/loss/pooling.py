"""Pooled hidden states of responses under any layout of the sequence."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from megatron.core.tensor_parallel.mappings import reduce_from_tensor_model_parallel_region
from torch import Tensor
from torch.distributed import ProcessGroup


def pool_responses(
    hidden_SBH: Tensor,
    pooled_index_BS: Tensor,
    num_responses: int,
    *,
    tp_group: ProcessGroup,
    cp_group: ProcessGroup | None = None,
    sequence_parallel: bool = False,
) -> Tensor:
    """Mean over each response's marked tokens of the state after the final norm. Returns [R, H] fp32 on every rank.

    Args:
        hidden_SBH: input of the output layer; under sequence parallelism this rank's [S / TP, B, H].
        pooled_index_BS: token coordinates (see `batches/microbatch.py`): the response into which the token *at* a
            position is pooled, or -1. `Microbatch.last_token_index_BS` pools the last token, `token_response_index_BS`
            the mean. Under context parallelism the local slice; under sequence parallelism still the whole of it.

    A token's state is read on the rank that owns the token and nowhere else. Sums over ranks (TP under sequence
    parallelism, and CP) all-reduce forward and pass the gradient on unchanged, because every rank of the group goes on
    to compute the same loss: the owner then gets the gradient once, not once per rank. Without sequence parallelism
    all TP ranks own all tokens, and each computes the whole gradient, which is what Megatron's layers expect.

    Raises:
        RuntimeError: a response has no marked token on any rank.
    """
    index_SB = pooled_index_BS.t()
    if sequence_parallel:
        index_SB = index_SB.chunk(dist.get_world_size(tp_group))[dist.get_rank(tp_group)]
    if index_SB.shape != hidden_SBH.shape[:2]:
        raise ValueError(f"{tuple(index_SB.shape)} indices for {tuple(hidden_SBH.shape[:2])} states")
    index = index_SB.reshape(-1)
    marked_N = (index >= 0).nonzero().squeeze(-1)
    response_N, order_N = index[marked_N].sort(stable=True)
    hidden_NH = hidden_SBH.flatten(0, 1).index_select(0, marked_N[order_N]).float()
    sum_RH = _SumOfResponses.apply(hidden_NH, response_N, num_responses)
    count_R = torch.bincount(response_N, minlength=num_responses).float()
    for group in (tp_group if sequence_parallel else None, cp_group):
        if group is not None:
            sum_RH = reduce_from_tensor_model_parallel_region(sum_RH, group=group)
            dist.all_reduce(count_R, group=group)
    torch._assert_async((count_R > 0).all(), "a response of the microbatch has no token to pool")
    return sum_RH / count_R[:, None]


class _SumOfResponses(torch.autograd.Function):
    """Sums of the rows of each response, which follow one another, in their order: [N, H] -> [R, H].

    On a GPU index_add sums in another order at every call: ranks that compute the same loss would get different
    gradients of replicated weights (the norms). Autograd's own segment_reduce would keep all rows for backward.
    """

    @staticmethod
    def forward(ctx: Any, rows_NH: Tensor, response_N: Tensor, num_responses: int) -> Tensor:
        ctx.save_for_backward(response_N)
        lengths_R = torch.bincount(response_N, minlength=num_responses)
        return torch.segment_reduce(rows_NH, "sum", lengths=lengths_R, unsafe=True)  # unsafe: lengths are not checked

    @staticmethod
    def backward(ctx: Any, grad_RH: Tensor) -> tuple[Tensor, None, None]:
        (response_N,) = ctx.saved_tensors
        return grad_RH.index_select(0, response_N), None, None
