"""Precision configs -> types, alignment, and what they need of the machine."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch

from nemo_sspo.config.precisions import Bf16Precision, Fp8Precision, Fp32Precision, Precision
from nemo_sspo.errors import UserError

_HOPPER = (9, 0)


def params_dtype(precision: Precision) -> torch.dtype:
    """Type of the model's parameters, and of the checkpoints and exports made from them."""
    return torch.float32 if precision.kind == "fp32" else torch.bfloat16


def precision_fields(precision: Precision) -> dict[str, Any]:
    """Fields of Megatron's config beyond the types: in bf16 the products, in FP8 those that Transformer Engine does."""
    match precision:
        case Fp32Precision():
            return {}
        case Bf16Precision():
            return {"bf16": True}
        case Fp8Precision():
            return {"bf16": True, **fp8_fields(precision)}


def fp8_fields(precision: Fp8Precision) -> dict[str, Any]:
    """How Transformer Engine computes in FP8, by the names that Megatron's config and NeMo's plugin share."""
    return {
        "fp8": precision.format,
        "fp8_recipe": precision.recipe,
        "first_last_layers_bf16": precision.first_last_layers_bf16 > 0,
        "num_layers_at_start_in_bf16": precision.first_last_layers_bf16,
        "num_layers_at_end_in_bf16": precision.first_last_layers_bf16,
    }


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
