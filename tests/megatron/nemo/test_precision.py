from __future__ import annotations

import pytest

pytest.importorskip("nemo.collections.llm")

import torch

from nemo_sspo.config.load import load_experiment
from nemo_sspo.config.precisions import Bf16Precision, Fp8Precision, Fp32Precision, Precision
from nemo_sspo.megatron.models.precision import params_dtype
from nemo_sspo.megatron.nemo.precision import precision_plugin


def configured(name: str, *overrides: str) -> Precision:
    """What ``precision=<name>`` gives."""
    return load_experiment(["experiment=quickstart", f"precision={name}", *overrides]).precision


def test_fp32_is_whole() -> None:
    config = precision_plugin(configured("fp32")).dtype_config
    assert (config.fp32, config.bf16, config.fp8) == (True, False, None)
    assert config.params_dtype == config.pipeline_dtype == params_dtype(Fp32Precision()) == torch.float32


def test_bf16_trains_bf16_parameters_and_reduces_in_fp32() -> None:
    config = precision_plugin(configured("bf16")).dtype_config
    assert (config.fp32, config.bf16, config.fp8) == (False, True, None)
    assert config.params_dtype == config.pipeline_dtype == params_dtype(Bf16Precision()) == torch.bfloat16
    assert config.grad_reduce_in_fp32
    assert not config.autocast_enabled


def test_fp8_is_bf16_with_fp8_products() -> None:
    """NeMo's plugin is plain settings: it is made here without Transformer Engine and without a GPU."""
    config = precision_plugin(configured("fp8")).dtype_config
    assert (config.fp8, config.fp8_recipe) == ("hybrid", "tensorwise")
    assert config.params_dtype == params_dtype(Fp8Precision()) == torch.bfloat16
    assert (config.bf16, config.grad_reduce_in_fp32) == (True, True)
    assert (config.fp8_param, config.fp8_param_gather) == (False, False)
    assert not config.first_last_layers_bf16


def test_layers_at_either_end_stay_in_bf16() -> None:
    overrides = ("precision.format=e4m3", "precision.first_last_layers_bf16=2")
    config = precision_plugin(configured("fp8", *overrides)).dtype_config
    assert (config.fp8, config.fp8_recipe) == ("e4m3", "tensorwise")
    assert config.first_last_layers_bf16
    assert (config.num_layers_at_start_in_bf16, config.num_layers_at_end_in_bf16) == (2, 2)
