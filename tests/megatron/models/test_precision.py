from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("nemo.collections.llm")

import torch

from nemo_sspo.config.load import load_experiment
from nemo_sspo.config.precisions import Bf16Precision, Fp8Precision, Fp32Precision, Precision
from nemo_sspo.config.stages import Parallel, Train
from nemo_sspo.errors import UserError
from nemo_sspo.megatron.batches.batch_plan import shuffled
from nemo_sspo.megatron.batches.microbatch_plan import MicrobatchPlan
from nemo_sspo.megatron.batches.pairs import PairTable
from nemo_sspo.megatron.models.precision import params_dtype, require_support, token_multiple
from nemo_sspo.megatron.nemo.model_config import training_config
from nemo_sspo.megatron.nemo.precision import precision_plugin
from tests.megatron.worlds import job, train


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


def test_a_recipe_whose_scales_the_reference_lacks_is_refused() -> None:
    with pytest.raises(UserError, match=r"precision\.recipe: delayed scaling is not supported: .*; use tensorwise"):
        configured("fp8", "precision.recipe=delayed")


def machine(monkeypatch: pytest.MonkeyPatch, *, engine: bool, capability: tuple[int, int] | None) -> None:
    """Pretend that Transformer Engine and a GPU are there or not; only what says so is replaced."""
    real = importlib.util.find_spec

    def find_spec(name: str, package: str | None = None) -> object:
        return (object() if engine else None) if name == "transformer_engine" else real(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: capability is not None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)


@pytest.mark.parametrize(
    ("engine", "capability", "message"),
    [
        (False, (9, 0), "Transformer Engine, which is not installed"),
        (True, None, "Hopper-class GPU .* none here"),
        (True, (8, 0), "this one has 8.0"),
    ],
)
def test_fp8_is_refused_before_anything_is_loaded(
    imported: Path,
    monkeypatch: pytest.MonkeyPatch,
    engine: bool,
    capability: tuple[int, int] | None,
    message: str,
) -> None:
    machine(monkeypatch, engine=engine, capability=capability)
    with pytest.raises(UserError, match=message):
        training_config(imported / "hf", Parallel(), Fp8Precision(), Train())


@pytest.mark.parametrize("shared", [False, True])
def test_shared_prompts_ask_for_layers_that_take_them(imported: Path, shared: bool) -> None:
    made = training_config(imported / "hf", Parallel(), Fp32Precision(), Train(packing=True, share_prompt=shared))
    assert made.transformer_layer_spec.keywords == {"shares_prompts": shared, "layers": "auto"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_training_in_fp8_is_refused_in_one_line(supervised: PairTable, imported: Path, tmp_path: Path) -> None:
    training = replace(job(supervised, imported, tmp_path, Parallel()), precision=Fp8Precision())
    with pytest.raises(UserError, match=r"Transformer Engine|Hopper"):
        train(training)


def test_fp8_is_taken_where_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    for capability in ((9, 0), (10, 0)):
        machine(monkeypatch, engine=True, capability=capability)
        require_support(Fp8Precision())


@pytest.mark.parametrize("packing", [False, True])
def test_a_ranks_part_of_a_row_suits_the_fp8_products(supervised: PairTable, packing: bool) -> None:
    parallel = Parallel(tensor=2, sequence=True, context=2)
    train = Train(global_batch_size=8, micro_batch_size=2, packing=packing, pack_tokens=256)
    batches = shuffled(len(supervised), global_batch_size=8, epochs=1, seed=0)
    for precision, multiple in ((Fp8Precision(), 16), (Bf16Precision(), 1)):
        plan = MicrobatchPlan(supervised, batches, train, parallel, token_multiple(precision))
        length = plan.row_length(0)
        assert length % (parallel.tensor * parallel.context * multiple) == 0
        built = plan.build(0, plan.rows_of(0, 0)[0], 1, length).tensors
        assert built.tokens_BS.shape[1] == length
        assert int((built.last_token_index_BS >= 0).sum()) == built.num_responses


def test_a_rank_holds_whole_blocks_of_tokens_where_fp8_scales_blocks() -> None:
    """Transformer Engine refuses to gather a part of a block under sequence parallelism."""
    recipes = (Fp8Precision(recipe="blockwise"), Fp8Precision(), Bf16Precision())
    assert [token_multiple(precision) for precision in recipes] == [128, 16, 1]
