"""Megatron's config with what the layers of this package read beyond it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch.nn.functional as F
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor

from nemo_sspo.megatron.layers.gemma2 import gelu_tanh

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {"silu": F.silu, "gelu_pytorch_tanh": gelu_tanh}
"""Of the feed-forward's gate, by the name in ``config.json``."""


@dataclass
class PolicyConfig(TransformerConfig):
    """Config of a policy that needs no NeMo. NeMo's classes have these fields for the families that use them."""

    sandwich_norms: bool = False
    """Whether a layer normalizes its branches' outputs too."""
    attn_logit_softcapping: float | None = None
    """Bound of the attention logits."""
    final_logit_softcapping: float | None = None
    """Bound of the final logits."""
