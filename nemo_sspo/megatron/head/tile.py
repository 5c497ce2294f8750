"""The softmax of a tile of logits over the whole vocabulary, and its gradient in the logits' place.

A tile's columns are this rank's rows of the output weight, without those that pad the vocabulary.

A soft cap c (Gemma 2, arXiv:2408.00118, 2) stands between a logit x and the softmax: y = c tanh(x / c), |y| < c, and
dy/dx = 1 - (y / c)^2. Without one y = x. For a token with label t, gradient s = dL / d log p(t) and p = softmax(y):

    log p(t) = (y_t - m) - log Z,    m = max y,  Z = sum exp(y - m)      forward; both over all ranks
    dL/dx_j  = s ([j = t] - p_j) dy_j/dx_j                               written over x_j, in its dtype

Two files compute this of one rank's columns: `tile_triton.py` on a GPU, reading the tile once forward and once
backward, with all between in registers; `tile_torch.py` everywhere else, some rows of the tile at a time. Neither holds
the tile in fp32 beside it.

m and Z are kept apart: of logits of 1e4 a log Z + m in fp32 would be off by 5e-4, and p with it.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

from nemo_sspo.megatron.head import tile_torch
from nemo_sspo.megatron.head.normalizer import Normalizer


class TileMath(Protocol):
    """What is computed of one rank's columns. `labels_C` count from its first column and may lie outside; C, V > 0."""

    def statistics(self, logits_CV: Tensor, labels_C: Tensor, softcap: float | None) -> tuple[Tensor, Tensor, Tensor]:
        """max y, sum exp(y - max y), and y of the label or 0 where it lies outside: [C] fp32 each."""
        ...

    def to_gradient_(
        self, logits_CV: Tensor, labels_C: Tensor, dloss_dlogp_C: Tensor, of_all: Normalizer, softcap: float | None
    ) -> None:
        """Overwrite logits by dL/dx. `of_all`: over all ranks."""
        ...


def token_logps(
    logits_CV: Tensor, labels_C: Tensor, softcap: float | None, tp_group: ProcessGroup
) -> tuple[Tensor, Normalizer]:
    """log p(label), [C] fp32, over the columns of all ranks; two all-reduces. The logits stay as they are."""
    if logits_CV.numel():
        own_maximum_C, own_total_C, target_C = math_on(logits_CV.device.type).statistics(logits_CV, labels_C, softcap)
    else:  # no token, or a rank that holds padding of the vocabulary only
        own_maximum_C = torch.full(labels_C.shape, -torch.inf, device=logits_CV.device)
        own_total_C, target_C = torch.zeros_like(own_maximum_C), torch.zeros_like(own_maximum_C)
    maximum_C = own_maximum_C.clone()
    dist.all_reduce(maximum_C, op=dist.ReduceOp.MAX, group=tp_group)
    sums_2C = torch.stack([own_total_C * (own_maximum_C - maximum_C).exp(), target_C])
    dist.all_reduce(sums_2C, group=tp_group)
    total_C, target_C = sums_2C
    return target_C - maximum_C - total_C.log(), Normalizer(maximum_C, total_C)


def to_gradient_(
    logits_CV: Tensor, labels_C: Tensor, dloss_dlogp_C: Tensor, normalizer: Normalizer, softcap: float | None
) -> None:
    """Overwrite logits by dL/dx, for given dL / d log p(label), [C] fp32."""
    if logits_CV.numel():
        math_on(logits_CV.device.type).to_gradient_(logits_CV, labels_C, dloss_dlogp_C, normalizer, softcap)


@cache
def math_on(device: str) -> TileMath:
    if find_spec("triton") is not None:
        from nemo_sspo.megatron.head import tile_triton

        if device in tile_triton.DEVICES:
            return tile_triton
    return tile_torch
