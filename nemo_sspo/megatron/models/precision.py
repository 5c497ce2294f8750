"""Precision configs -> types, alignment, and what they need of the machine."""

from __future__ import annotations

import importlib.util

import torch

from nemo_sspo.config.precisions import Fp8Precision, Precision
from nemo_sspo.errors import UserError

_HOPPER = (9, 0)


def params_dtype(precision: Precision) -> torch.dtype:
    """Type of the model's parameters, and of the checkpoints and exports made from them."""
    return torch.float32 if precision.kind == "fp32" else torch.bfloat16


def token_multiple(precision: Precision) -> int:
    """What the tokens of a rank's microbatch are a multiple of.

    FP8 products need 16, as Megatron aligns to. Blocks are of 128 tokens, and under sequence parallelism Transformer
    Engine gathers whole ones only.
    """
    if not isinstance(precision, Fp8Precision):
        return 1
    return 128 if precision.recipe == "blockwise" else 16


def require_support(precision: Precision) -> None:
    """Raise UserError for FP8 without Transformer Engine or a Hopper-class GPU."""
    if not isinstance(precision, Fp8Precision):
        return
    if importlib.util.find_spec("transformer_engine") is None:
        raise UserError("precision=fp8 needs Transformer Engine, which is not installed; use precision=bf16")
    if not torch.cuda.is_available():
        raise UserError(
            "precision=fp8 needs a Hopper-class GPU (H100, H200) or newer, and there is none here; use bf16"
        )
    capability = torch.cuda.get_device_capability()
    if capability < _HOPPER:
        raise UserError(
            f"precision=fp8 needs a Hopper-class GPU (compute capability >= 9.0); this one has "
            f"{capability[0]}.{capability[1]}: use precision=bf16"
        )
