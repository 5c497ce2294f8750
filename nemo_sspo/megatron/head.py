"""Per-response sums of log-probabilities from hidden states, without ever holding [tokens x vocabulary].

Legend: S sequence, B rows, H hidden, V this rank's rows of the output weight, N selected (response) tokens of this
rank, C tokens of a chunk, R responses of the microbatch.

Only response tokens are scored, in chunks of C: per chunk logits_CV = h_CH @ w_VH^T in the weights' precision, then
max, sum of exponentials and target logit in fp32, reduced over the tensor-parallel group. Backward computes a chunk's
logits again (4 GEMMs in all) rather than keep them. The weight's gradient is summed over chunks in fp32 and handed to
autograd in the weight's dtype, from where Megatron's data-parallel hook adds it to `main_grad`.

A soft cap c (Gemma 2, arXiv:2408.00118, 2) stands between product and softmax: y = c tanh(x / c), so that
dL/dx = dL/dy (1 - (y / c)^2).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from megatron.core.tensor_parallel.mappings import (
    copy_to_tensor_model_parallel_region,
    gather_from_sequence_parallel_region,
    reduce_from_tensor_model_parallel_region,
)
from torch import Tensor
from torch.distributed import ProcessGroup


def response_logps(
    hidden_SBH: Tensor,
    output_weight_VH: Tensor,
    labels_BS: Tensor,
    response_index_BS: Tensor,
    num_responses: int,
    *,
    vocab_size: int,
    chunk_tokens: int,
    tp_group: ProcessGroup,
    cp_group: ProcessGroup | None = None,
    sequence_parallel: bool = False,
    softcap: float | None = None,
) -> Tensor:
    """Sum over each response's tokens of log p(label) at temperature 1. Returns [R] fp32, equal on all TP x CP ranks.

    Args:
        hidden_SBH: input of the output layer; under sequence parallelism this rank's [S / TP, B, H].
        output_weight_VH: this rank's rows of the (tied or untied) output weight; rank r holds rows r*V ... r*V + V-1.
        labels_BS: the token that each position predicts. Under context parallelism all *_BS are the local slices.
        response_index_BS: which response in [0, R) the *label* belongs to; -1 for prompt and padding.
        vocab_size: rows with a global index >= vocab_size are padding and take no part in the softmax, as in HF.
        chunk_tokens: tokens whose logits exist at once, C.
        softcap: logits are held between -softcap and softcap; None leaves them as they are.

    Gradients, as Megatron's schedules and DDP want them:
        TP: the hidden state's gradient is complete on every rank (summed over the group); with sequence parallelism it
            is reduce-scattered to the ranks' own tokens. The weight's gradient is of this rank's rows.
        CP: the sum over the group passes the gradient on unchanged (all-reduce forward, identity backward), so each
            rank's parameter gradients are its own tokens' part, and their *sum* over the group is the gradient. The
            schedule's x CP and DDP's mean over DP x CP make that sum.
    """
    if hidden_SBH.dtype != output_weight_VH.dtype:
        raise ValueError(f"hidden states are {hidden_SBH.dtype}, but the output weight is {output_weight_VH.dtype}")
    if sequence_parallel:
        hidden_SBH = gather_from_sequence_parallel_region(hidden_SBH, group=tp_group)
    else:
        hidden_SBH = copy_to_tensor_model_parallel_region(hidden_SBH, group=tp_group)
    index_SB = response_index_BS.t().reshape(-1)
    selected_N = (index_SB >= 0).nonzero().squeeze(-1)
    response_N = index_SB[selected_N]
    logp_N = _TokenLogps.apply(
        hidden_SBH.flatten(0, 1).index_select(0, selected_N),
        output_weight_VH,
        labels_BS.t().reshape(-1)[selected_N],
        vocab_size,
        chunk_tokens,
        tp_group,
        softcap,
    )
    # A masked sum rather than index_add: its order, and so its rounding, is the same at every call, also on a GPU.
    # The first loss of a run is compared with its closed form, which needs d = 0.
    is_response_RN = response_N == torch.arange(num_responses, device=response_N.device)[:, None]
    logps_R = torch.where(is_response_RN, logp_N, 0.0).sum(dim=-1)
    if cp_group is None:
        return logps_R
    return reduce_from_tensor_model_parallel_region(logps_R, group=cp_group)


class _TokenLogps(torch.autograd.Function):
    """log softmax(h w^T)[label] of every row of h. Gradient of h is this rank's share: the caller sums over TP."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_NH: Tensor,
        weight_VH: Tensor,
        labels_N: Tensor,
        vocab_size: int,
        chunk_tokens: int,
        tp_group: ProcessGroup,
        softcap: float | None,
    ) -> Tensor:
        first_row = dist.get_rank(tp_group) * weight_VH.shape[0]
        # Rows of vocabulary padding are the last ones: leaving them out of the product leaves them out of the softmax.
        rows = min(max(vocab_size - first_row, 0), weight_VH.shape[0])
        labels_N = labels_N - first_row
        logp, log_z = [], []
        for hidden_CH, labels_C in zip(hidden_NH.split(chunk_tokens), labels_N.split(chunk_tokens), strict=True):
            logits_CV = _logits(hidden_CH, weight_VH[:rows], softcap)
            logp_C, log_z_C = _logp_and_normalizer(logits_CV, labels_C, tp_group)
            logp.append(logp_C)
            log_z.append(log_z_C)
        log_z_N = torch.cat(log_z)
        ctx.save_for_backward(hidden_NH, weight_VH, labels_N, log_z_N)
        ctx.rows, ctx.chunk_tokens, ctx.softcap = rows, chunk_tokens, softcap
        return torch.cat(logp)

    @staticmethod
    def backward(ctx: Any, grad_N: Tensor) -> tuple[Tensor | None, ...]:
        hidden_NH, weight_VH, labels_N, log_z_N = ctx.saved_tensors
        weight_rows_VH = weight_VH[: ctx.rows]
        grad_weight_VH: Tensor | None = None
        if ctx.needs_input_grad[1]:  # not so for adapters on a frozen model
            grad_weight_VH = torch.zeros(weight_VH.shape, dtype=torch.float32, device=weight_VH.device)
        grad_hidden = []
        chunks = (tensor.split(ctx.chunk_tokens) for tensor in (hidden_NH, labels_N, log_z_N, grad_N))
        for hidden_CH, labels_C, log_z_C, grad_C in zip(*chunks, strict=True):
            # d log p(label) / d logits = onehot(label) - softmax
            grad_logits_CV = _logits(hidden_CH, weight_rows_VH, ctx.softcap)
            slope_CV = None if ctx.softcap is None else _softcap_slope(grad_logits_CV, ctx.softcap)
            grad_logits_CV.sub_(log_z_C[:, None]).exp_()
            grad_logits_CV.mul_(-grad_C[:, None])
            is_local_C, column_C = _local_column(labels_C, ctx.rows)
            if ctx.rows:
                grad_logits_CV.scatter_add_(1, column_C[:, None], torch.where(is_local_C, grad_C, 0.0)[:, None])
            if slope_CV is not None:
                grad_logits_CV.mul_(slope_CV)
            grad_logits_CV = grad_logits_CV.to(weight_VH.dtype)
            grad_hidden.append(grad_logits_CV @ weight_rows_VH)
            if grad_weight_VH is not None:
                grad_weight_VH[: ctx.rows] += grad_logits_CV.t() @ hidden_CH
        if grad_weight_VH is not None:
            grad_weight_VH = grad_weight_VH.to(weight_VH.dtype)
        return torch.cat(grad_hidden), grad_weight_VH, None, None, None, None, None


def _logits(hidden_CH: Tensor, weight_VH: Tensor, softcap: float | None) -> Tensor:
    logits_CV = (hidden_CH @ weight_VH.t()).float()
    return logits_CV if softcap is None else logits_CV.div_(softcap).tanh_().mul_(softcap)


def _softcap_slope(capped_CV: Tensor, softcap: float) -> Tensor:
    """d c tanh(x / c) / dx at each capped logit."""
    return torch.div(capped_CV, softcap).square_().neg_().add_(1.0)


def _local_column(labels_C: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """Whether a label (counted from this rank's first row) is one of this rank's rows, and a valid column for it."""
    is_local_C = (labels_C >= 0) & (labels_C < rows)
    return is_local_C, torch.where(is_local_C, labels_C, 0)


def _logp_and_normalizer(logits_CV: Tensor, labels_C: Tensor, tp_group: ProcessGroup) -> tuple[Tensor, Tensor]:
    """log p(label) and log sum exp over the whole vocabulary, [C] fp32 each. Overwrites this rank's columns."""
    tokens, rows = logits_CV.shape
    maximum_C = logits_CV.amax(dim=-1) if rows else logits_CV.new_full((tokens,), -torch.inf)
    dist.all_reduce(maximum_C, op=dist.ReduceOp.MAX, group=tp_group)
    logits_CV.sub_(maximum_C[:, None])
    target_C = torch.zeros_like(maximum_C)
    if rows:
        is_local_C, column_C = _local_column(labels_C, rows)
        target_C = torch.where(is_local_C, logits_CV.gather(1, column_C[:, None]).squeeze(1), 0.0)
    sums_2C = torch.stack([logits_CV.exp_().sum(dim=-1), target_C])
    dist.all_reduce(sums_2C, group=tp_group)
    log_sum_C, target_C = sums_2C[0].log(), sums_2C[1]
    return target_C - log_sum_C, log_sum_C + maximum_C
