"""Precision configs -> NeMo's mixed-precision plugin. The head's reductions and the loss are fp32 in all of them."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from nemo.lightning.pytorch.plugins import MegatronMixedPrecision

from nemo_sspo.config.variants import Bf16Precision, Fp8Precision, Fp32Precision, Precision
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


def precision_plugin(precision: Precision) -> MegatronMixedPrecision:
    """The plugin of a precision config; see `require_support` for what it needs."""
    return MegatronMixedPrecision(**_settings(precision))


def _settings(precision: Precision) -> dict[str, Any]:
    """Arguments of NeMo's plugin."""
    match precision:
        case Fp32Precision():
            return {"precision": "32", "params_dtype": torch.float32, "pipeline_dtype": torch.float32}
        case Bf16Precision():
            return _BF16
        case Fp8Precision():
            return _BF16 | {
                "fp8": precision.format,
                "fp8_recipe": precision.recipe,
                "first_last_layers_bf16": precision.first_last_layers_bf16 > 0,
                "num_layers_at_start_in_bf16": precision.first_last_layers_bf16,
                "num_layers_at_end_in_bf16": precision.first_last_layers_bf16,
                # Parameters stay bf16: the reference log-probs and the exported policy are the bf16 model's.
                "fp8_param_gather": False,
            }


_BF16: dict[str, Any] = {
    "precision": "bf16-mixed",
    "params_dtype": torch.bfloat16,
    "pipeline_dtype": torch.bfloat16,
    "autocast_enabled": False,
    "grad_reduce_in_fp32": True,
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
