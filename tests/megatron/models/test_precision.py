from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("megatron.core")

import torch

from nemo_sspo.config.load import load_experiment
from nemo_sspo.config.precisions import Bf16Precision, Fp8Precision, Precision
from nemo_sspo.config.stages import Parallel, Train
from nemo_sspo.errors import UserError
from nemo_sspo.megatron.batches.batch_plan import shuffled
from nemo_sspo.megatron.batches.microbatch_plan import MicrobatchPlan
from nemo_sspo.megatron.batches.pairs import PairTable
from nemo_sspo.megatron.batches.row_shape import token_multiple
from nemo_sspo.megatron.binding import Binding
from nemo_sspo.megatron.models.precision import require_support
from tests.megatron.worlds import job, train


def configured(name: str, *overrides: str) -> Precision:
    """What ``precision=<name>`` gives."""
    return load_experiment(["experiment=quickstart", f"precision={name}", *overrides]).precision


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
    binding: Binding,
    supervised: PairTable,
    tmp_path: Path,
    imported: Path,
    monkeypatch: pytest.MonkeyPatch,
    engine: bool,
    capability: tuple[int, int] | None,
    message: str,
) -> None:
    machine(monkeypatch, engine=engine, capability=capability)
    with pytest.raises(UserError, match=message):
        binding.refuse(replace(job(supervised, imported, tmp_path, Parallel()), precision=Fp8Precision()))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_training_in_fp8_is_refused_in_one_line(
    binding: Binding, supervised: PairTable, imported: Path, tmp_path: Path
) -> None:
    training = replace(job(supervised, imported, tmp_path, Parallel()), precision=Fp8Precision())
    with pytest.raises(UserError, match=r"Transformer Engine|Hopper"):
        train(binding, training)


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
