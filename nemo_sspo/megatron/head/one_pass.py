"""Log-prob sums whose gradient is computed while their logits exist: three GEMMs over response tokens, none twice.

`recompute.py` computes a chunk's logits forward and again backward, because the loss's gradient needs
every log-prob. For a separable loss (`objective/separable.py`) a response's gradient needs only that response's sum. So
this head takes whole responses, as many as fit into a tile of C tokens:

    logits_CV = h w^T  ->  sums  ->  dL/d sums  ->  d logits_CV, in place  ->  d h = d logits w,  d w += d logits^T h

and backward only scales what forward has found; d w is held in fp32 between the two. A response longer than a tile is
walked in chunks of C tokens; only the last one's logits are still there when its sum is known, so those before it are
computed twice.

Collectives: each chunk reduces its maxima, then its sums of exponentials with its target logits, over TP; each group
of responses that share a tile reduces its sums over CP; the hidden state's gradient is reduced once over TP.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

from nemo_sspo.megatron.head.common import add_weight_gradient, logits_tile, response_tokens
from nemo_sspo.megatron.head.normalizer import Normalizer
from nemo_sspo.megatron.head.tile import to_gradient_, token_logps

DlossDlogp = Callable[[Tensor, Tensor], Tensor]
"""(sums of log-probs, indices of their responses in [0, R)) -> dL / d sum of each; all of one shape."""

# Of the largest gradient: the rounding allowed between forward's dL/d log p and the gradient that backward gets.
_GRADIENT_TOLERANCE = 1e-4


def one_pass_logps(
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
    dloss_dlogp: DlossDlogp | None = None,
) -> Tensor:
    """`recompute.response_logps`, by tiles of whole responses: equal values and, given `dloss_dlogp`, equal gradients.

    Args:
        dloss_dlogp: the gradient of the loss for each sum, up to one factor for all of them (Megatron scales losses);
            without it the result has no gradient.

    Where the weight has a `main_grad` (Megatron's data parallelism), its gradient is added to that in fp32.

    Raises:
        RuntimeError: in backward, the gradient is no multiple of `dloss_dlogp`: the loss is not separable.
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
    counts_R = torch.bincount(tokens.response_N, minlength=num_responses)
    walk = _Walk(
        labels_N=tokens.labels_N,
        response_N=tokens.response_N,
        rows=tokens.rows,
        counts=counts_R.tolist(),
        groups=tile_groups(_most_over(cp_group, counts_R), chunk_tokens),
        chunk_tokens=chunk_tokens,
        softcap=softcap,
        tp_group=tp_group,
        cp_group=cp_group,
    )
    return OnePass.apply(tokens.hidden_NH, output_weight_VH, walk, dloss_dlogp if torch.is_grad_enabled() else None)


def _most_over(group: ProcessGroup | None, counts_R: Tensor) -> list[int]:
    """Tokens of each response on the rank that has most: context-parallel ranks must form the same groups."""
    most_R = counts_R.clone()
    if group is not None:
        dist.all_reduce(most_R, op=dist.ReduceOp.MAX, group=group)
    return most_R.tolist()


def tile_groups(counts: Sequence[int], budget: int) -> list[range]:
    """Consecutive responses that fit into one tile together; a response above the budget is a group of its own."""
    groups: list[range] = []
    filled = budget + 1
    for response, count in enumerate(counts):
        if filled + count > budget:
            groups.append(range(response, response))
            filled = 0
        groups[-1] = range(groups[-1].start, response + 1)
        filled += count
    return groups


@dataclass(frozen=True)
class _Walk:
    """Which tokens to score, in which order, and who else scores them."""

    labels_N: Tensor  # these three as in `ResponseTokens`
    response_N: Tensor
    rows: int
    counts: list[int]  # this rank's tokens of each response
    groups: list[range]
    chunk_tokens: int
    softcap: float | None
    tp_group: ProcessGroup
    cp_group: ProcessGroup | None

    def chunks(self) -> Iterator[tuple[range, list[slice]]]:
        """Each group of responses with its tokens, cut into at least one chunk."""
        end = 0
        for group in self.groups:
            start, end = end, end + sum(self.counts[response] for response in group)
            starts = range(start, max(end, start + 1), self.chunk_tokens)
            yield group, [slice(first, min(first + self.chunk_tokens, end)) for first in starts]

    def token_logps(self, tile_CV: Tensor, chunk: slice) -> tuple[Tensor, Normalizer]:
        return token_logps(tile_CV, self.labels_N[chunk], self.softcap, self.tp_group)

    def sums(self, logp_N: Tensor, tokens: slice, group: range) -> tuple[Tensor, Tensor]:
        """Sums of the group's log-probs over the context-parallel ranks, and the responses' indices."""
        indices = torch.arange(group.start, group.stop, device=logp_N.device)
        # A masked sum rather than index_add: its order, and so its rounding, is the same at every call, also on a GPU.
        is_response = self.response_N[tokens] == indices[:, None]
        sums = torch.where(is_response, logp_N, 0.0).sum(dim=-1)
        if self.cp_group is not None:
            dist.all_reduce(sums, group=self.cp_group)
        return sums, indices


class OnePass(torch.autograd.Function):
    """Gradient of h is this rank's share: the caller sums over TP."""

    @staticmethod
    def forward(ctx: Any, hidden_NH: Tensor, weight_VH: Tensor, walk: _Walk, dloss_dlogp: DlossDlogp | None) -> Tensor:
        gradients = None if dloss_dlogp is None else _Gradients(hidden_NH, weight_VH, walk, ctx.needs_input_grad[1])
        logps, dloss_dlogps = [], []
        for group, chunks in walk.chunks():
            sums, own_dloss_dlogp = _score(
                hidden_NH, weight_VH[: walk.rows], walk, group, chunks, dloss_dlogp, gradients
            )
            logps.append(sums)
            dloss_dlogps.append(own_dloss_dlogp)
        logps_R = torch.cat(logps)
        if gradients is None:
            ctx.mark_non_differentiable(logps_R)
            return logps_R
        ctx.gradients = gradients.hidden_NH, gradients.weight_VH
        ctx.dloss_dlogp_R, ctx.weight = torch.cat(dloss_dlogps), weight_VH
        return logps_R

    @staticmethod
    def backward(ctx: Any, grad_R: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.gradients is None:
            raise RuntimeError("the one-pass head's gradient is used up by the first backward pass")
        (grad_NH, grad_VH), ctx.gradients = ctx.gradients, None
        factor = gradient_factor(grad_R, ctx.dloss_dlogp_R)
        return grad_NH.mul_(factor.to(grad_NH.dtype)), _handed_over(grad_VH, ctx.weight, factor), None, None


def _score(
    hidden_NH: Tensor,
    rows_VH: Tensor,
    walk: _Walk,
    group: range,
    chunks: list[slice],
    dloss_dlogp: DlossDlogp | None,
    gradients: _Gradients | None,
) -> tuple[Tensor, Tensor]:
    """Sums of a group's log-probs and dL/d of each; adds to the gradients. Its tile is gone when it returns."""
    *early, last = chunks
    logp, normalizers = [], []
    for chunk in early:
        logp_C, normalizer = walk.token_logps(logits_tile(hidden_NH[chunk], rows_VH), chunk)
        logp.append(logp_C)
        normalizers.append(normalizer)
    tile_CV = logits_tile(hidden_NH[last], rows_VH)
    logp_C, normalizer = walk.token_logps(tile_CV, last)
    sums, indices = walk.sums(torch.cat([*logp, logp_C]), slice(chunks[0].start, last.stop), group)
    if dloss_dlogp is None or gradients is None:
        return sums, torch.zeros_like(sums)
    own_dloss_dlogp = dloss_dlogp(sums, indices)
    gradients.add(last, tile_CV, normalizer, own_dloss_dlogp, group)
    del tile_CV
    for chunk, normalizer in zip(early, normalizers, strict=True):
        gradients.add(chunk, logits_tile(hidden_NH[chunk], rows_VH), normalizer, own_dloss_dlogp, group)
    return sums, own_dloss_dlogp


class _Gradients:
    """Gradients of hidden states and weight, for `dloss_dlogp` as it is."""

    def __init__(self, hidden_NH: Tensor, weight_VH: Tensor, walk: _Walk, of_weight: bool) -> None:
        self._inputs_NH, self._rows_VH, self._walk = hidden_NH, weight_VH[: walk.rows], walk
        self.hidden_NH = torch.empty_like(hidden_NH)
        self.weight_VH: Tensor | None = None
        if of_weight:  # not so for adapters on a frozen model
            self.weight_VH = torch.zeros(weight_VH.shape, dtype=torch.float32, device=weight_VH.device)

    def add(self, chunk: slice, tile_CV: Tensor, normalizer: Normalizer, dloss_dlogp: Tensor, group: range) -> None:
        """`tile_CV`: the chunk's logits, which are overwritten. `dloss_dlogp`: of each response of the group."""
        walk = self._walk
        dloss_dlogp_C = dloss_dlogp[walk.response_N[chunk] - group.start]
        to_gradient_(tile_CV, walk.labels_N[chunk], dloss_dlogp_C, normalizer, walk.softcap)
        torch.mm(tile_CV, self._rows_VH, out=self.hidden_NH[chunk])
        if self.weight_VH is not None:
            add_weight_gradient(self.weight_VH, tile_CV, self._inputs_NH[chunk])


def gradient_factor(grad_R: Tensor, dloss_dlogp_R: Tensor) -> Tensor:
    """The factor between the gradient and `dloss_dlogp`; checked."""
    leading = dloss_dlogp_R.abs().argmax(dim=0, keepdim=True)
    # Gathered: to index by a number of the GPU, the host would wait for it.
    made, grad = (values_R.gather(0, leading).squeeze(0) for values_R in (dloss_dlogp_R, grad_R))
    factor = torch.where(made == 0, 0.0, grad / made)
    is_multiple = (grad_R - factor * dloss_dlogp_R).abs().amax() <= _GRADIENT_TOLERANCE * grad_R.abs().amax()
    # NaN and Inf pass here: the step's own check of the gradients reports them more precisely.
    torch._assert_async(
        is_multiple | ~grad_R.isfinite().all(),
        "the one-pass head got a gradient that is no multiple of its dloss_dlogp: the loss couples the two responses "
        "of a pair; set train.head=recompute",
    )
    return factor


def _handed_over(grad_VH: Tensor | None, weight_VH: Tensor, factor: Tensor) -> Tensor | None:
    """The weight's gradient for autograd; where Megatron keeps a `main_grad`, it is added to that.

    Autograd then gets a stand-in. The protocol is that of Megatron's own layers with `gradient_accumulation_fusion`:
    the mark on the weight has the data-parallel hook leave the stand-in alone, except where a tied embedding adds its
    own gradient to it.
    """
    if grad_VH is None:
        return None
    if not hasattr(weight_VH, "grad_added_to_main_grad"):
        return grad_VH.mul_(factor).to(weight_VH.dtype)
    weight_VH.main_grad.addcmul_(grad_VH, factor)  # type: ignore[attr-defined]
    weight_VH.grad_added_to_main_grad = True
    if getattr(weight_VH, "zero_out_wgrad", False):
        return torch.zeros_like(weight_VH)
    return torch.empty_like(weight_VH)
