"""Core attention of GPUs for shared prompts and capped logits: torch's flex-attention.

One fused kernel computes, caps and masks one block of scores at a time, forward and backward: neither scores nor a mask
of size S x T are ever in memory, and fully masked blocks are skipped.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention
from typing_extensions import override

from nemo_sspo.errors import UserError
from nemo_sspo.megatron.layers.attention_mask import AttentionMask, padded_length
from nemo_sspo.megatron.layers.core_attention import CoreAttention
from nemo_sspo.megatron.layers.gemma2 import soft_cap

_MOST_KERNELS = 64
"""Lengths (`padded_length`) x with and without a gradient; torch gives up at 8."""
_LEAST_CHANNELS = 16
"""torch has no kernel for smaller heads. Zeros beside their channels change no score."""


class FlexCoreAttention(CoreAttention):
    """Compiled on a GPU. On a CPU torch runs the same function as it is written, holding all scores; for tests."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.dropout > 0.0:
            raise UserError(f"flex-attention has no dropout: the policy's attention_dropout={self.dropout} must be 0")

    @override
    def attend(self, q_BASD: Tensor, k_BGTD: Tensor, v_BGTD: Tensor, mask: AttentionMask) -> Tensor:
        length, channels = q_BASD.shape[2:]
        o_BASD = _run(
            *(_padded(x) for x in (q_BASD, k_BGTD, v_BGTD)),
            score_mod=None if self.softcap is None else _capping(self.softcap),
            block_mask=mask.block_mask,
            scale=self.scale,
            enable_gqa=True,
        )
        return o_BASD[:, :, :length, :channels]


def _padded(x_BASD: Tensor) -> Tensor:
    """Contiguous also where nothing is added: torch compiles anew for other strides."""
    length, channels = x_BASD.shape[2:]
    rest, beside = padded_length(length) - length, max(0, _LEAST_CHANNELS - channels)
    return F.pad(x_BASD, (0, beside, 0, rest)) if rest or beside else x_BASD.contiguous()


@cache
def _capping(cap: float) -> Callable[..., Tensor]:
    def capped(score: Tensor, _row: Tensor, _head: Tensor, _query: Tensor, _key: Tensor) -> Tensor:
        return soft_cap(score, cap)

    return capped


def _run(query: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    if not query.is_cuda:
        return flex_attention(query, *args, **kwargs)
    with torch._dynamo.config.patch(recompile_limit=_MOST_KERNELS):
        return _compiled()(query, *args, **kwargs)


@cache
def _compiled() -> Callable[..., Tensor]:
    # A whole graph or an error: beyond the limit, torch would silently go on as on a CPU, with all scores in memory.
    return torch.compile(flex_attention, dynamic=False, fullgraph=True)
