"""Per-response sums of log-probabilities from hidden states, without ever holding [tokens x vocabulary].

Only response tokens are scored, in chunks of C, whose logits exist one chunk at a time (`tile.py`).
Backward computes them again (4 GEMMs in all) rather than keep them. The weight's gradient is summed over chunks in fp32
and handed to autograd in the weight's dtype, from where Megatron's data-parallel hook adds it to `main_grad`.
"""

from __future__ import annotations

from typing import Any

import torch
from megatron.core.tensor_parallel.mappings import reduce_from_tensor_model_parallel_region
from torch import Tensor
from torch.distributed import ProcessGroup

from nemo_sspo.megatron.head.common import add_weight_gradient, logits_tile, response_tokens
from nemo_sspo.megatron.head.normalizer import Normalizer
from nemo_sspo.megatron.head.tile import to_gradient_, token_logps


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
        softcap: logits are held between -softcap and softcap (`tile.py`); None leaves them as they are.

    Gradients, as Megatron's schedules and DDP want them:
        TP: the hidden state's gradient is complete on every rank (summed over the group); with sequence parallelism it
            is reduce-scattered to the ranks' own tokens. The weight's gradient is of this rank's rows.
        CP: the sum over the group passes the gradient on unchanged (all-reduce forward, identity backward), so each
            rank's parameter gradients are its own tokens' part, and their *sum* over the group is the gradient. The
            schedule's x CP and DDP's mean over DP x CP make that sum.
    """
    tokens = response_tokens(
        hidden_SBH,
        output_weight_VH,
        labels_BS,
        response_index_BS,
        vocab_size=vocab_size,
        tp_group=tp_group,
        sequence_parallel=sequence_parallel,
    )
    logp_N = TokenLogps.apply(
        tokens.hidden_NH, output_weight_VH, tokens.labels_N, tokens.rows, chunk_tokens, tp_group, softcap
    )
    # A masked sum rather than index_add: its order, and so its rounding, is the same at every call, also on a GPU.
    # The first loss of a run is compared with its closed form, which needs d = 0.
    is_response_RN = tokens.response_N == torch.arange(num_responses, device=logp_N.device)[:, None]
    logps_R = torch.where(is_response_RN, logp_N, 0.0).sum(dim=-1)
    if cp_group is None:
        return logps_R
    return reduce_from_tensor_model_parallel_region(logps_R, group=cp_group)


class TokenLogps(torch.autograd.Function):
    """log softmax(h w^T)[label] of every row of h. Gradient of h is this rank's share: the caller sums over TP."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_NH: Tensor,
        weight_VH: Tensor,
        labels_N: Tensor,
        rows: int,
        chunk_tokens: int,
        tp_group: ProcessGroup,
        softcap: float | None,
    ) -> Tensor:
        logp, maximum, total = [], [], []
        for hidden_CH, labels_C in zip(hidden_NH.split(chunk_tokens), labels_N.split(chunk_tokens), strict=True):
            # No name holds the logits: they would stay while the next chunk's are made.
            logp_C, normalizer = token_logps(logits_tile(hidden_CH, weight_VH[:rows]), labels_C, softcap, tp_group)
            logp.append(logp_C)
            maximum.append(normalizer.maximum_C)
            total.append(normalizer.total_C)
        ctx.save_for_backward(hidden_NH, weight_VH, labels_N, torch.cat(maximum), torch.cat(total))
        ctx.rows, ctx.chunk_tokens, ctx.softcap = rows, chunk_tokens, softcap
        return torch.cat(logp)

    @staticmethod
    def backward(ctx: Any, dloss_dlogp_N: Tensor) -> tuple[Tensor | None, ...]:
        hidden_NH, weight_VH, labels_N, maximum_N, total_N = ctx.saved_tensors
        grad_NH = torch.empty_like(hidden_NH)
        grad_VH: Tensor | None = None
        if ctx.needs_input_grad[1]:  # not so for adapters on a frozen model
            grad_VH = torch.zeros(weight_VH.shape, dtype=torch.float32, device=weight_VH.device)
        for first in range(0, len(hidden_NH), ctx.chunk_tokens):
            chunk = slice(first, first + ctx.chunk_tokens)
            tile_CV = logits_tile(hidden_NH[chunk], weight_VH[: ctx.rows])
            normalizer = Normalizer(maximum_N[chunk], total_N[chunk])
            to_gradient_(tile_CV, labels_N[chunk], dloss_dlogp_N[chunk], normalizer, ctx.softcap)
            torch.mm(tile_CV, weight_VH[: ctx.rows], out=grad_NH[chunk])
            if grad_VH is not None:
                add_weight_gradient(grad_VH, tile_CV, hidden_NH[chunk])
            del tile_CV  # before the next one
        return grad_NH, None if grad_VH is None else grad_VH.to(weight_VH.dtype), None, None, None, None, None
