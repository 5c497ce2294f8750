"""Precision configs -> NeMo's mixed-precision plugin. The head's reductions and the loss are fp32 in all of them."""

from __future__ import annotations

from typing import Any

import torch
from nemo.lightning.pytorch.plugins import MegatronMixedPrecision

from nemo_sspo.config.precisions import Bf16Precision, Fp8Precision, Fp32Precision, Precision
from nemo_sspo.megatron.models.precision import fp8_fields


def precision_plugin(precision: Precision) -> MegatronMixedPrecision:
    """The plugin of a precision config; see `require_support` in `models/precision.py` for what it needs."""
    return MegatronMixedPrecision(**_settings(precision))


def _settings(precision: Precision) -> dict[str, Any]:
    """Arguments of NeMo's plugin."""
    match precision:
        case Fp32Precision():
            return {"precision": "32", "params_dtype": torch.float32, "pipeline_dtype": torch.float32}
        case Bf16Precision():
            return _BF16
        case Fp8Precision():
            # Parameters stay bf16: the reference log-probs and the exported policy are the bf16 model's.
            return _BF16 | fp8_fields(precision) | {"fp8_param_gather": False}


_BF16: dict[str, Any] = {
    "precision": "bf16-mixed",
    "params_dtype": torch.bfloat16,
    "pipeline_dtype": torch.bfloat16,
    "autocast_enabled": False,
    "grad_reduce_in_fp32": True,
}
