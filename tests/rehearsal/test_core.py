"""Ranks that core trains, with whichever megatron-core and Transformer Engine are here: `make test-images`.

Of dense policies the layouts that differ most; of mixtures of experts, which NeMo does not train, every kind.
"""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from nemo_sspo.config.stages import Parallel, Train
from nemo_sspo.estimate.traffic.said import BF16, FP32
from tests.rehearsal.case import STEPS, Case
from tests.rehearsal.cases import TINY_MIXTURES, TINY_MODELS, TINY_PAIRS, mixture_cases, saving, tiny_case
from tests.rehearsal.checkpoint_keys import keys_of_conversion, keys_of_transformer_engine
from tests.rehearsal.run import rehearse, rehearse_and_resume
from tests.rehearsal.soundness import assert_sound

MODELS: dict[str, dict[str, Any]] = TINY_MODELS | TINY_MIXTURES
_ROW: dict[str, Any] = {
    **{"tensor": 2, "pipeline": "2", "context": 1, "data": "2", "rows": "packed", "precision": "bf16", "rank": "first"},
    **{"recompute": "none", "peft": "none", "loss": "sppo", "family": "llama"},
}
DENSE = [
    tiny_case(_ROW),
    tiny_case(_ROW | {"pipeline": "2x2", "data": "2 overlapped", "recompute": "full", "family": "qwen3"}),
    tiny_case(_ROW | {"context": 2, "pipeline": "1", "rows": "shared", "family": "gemma2", "rank": "last"}),
    tiny_case(_ROW | {"precision": "fp8 tensorwise", "peft": "lora", "pipeline": "1"}),
]

_TRANSFORMER_ENGINE = tuple(map(int, version("transformer-engine").split(".")[:2]))


@pytest.mark.parametrize("model", MODELS)
def test_a_checkpoint_has_what_the_layers_ask_for(model: str, tmp_path: Path) -> None:
    """Name by name and shape by shape: the layers of Transformer Engine, and those of the conversion."""
    parallel = Parallel(tensor=2, sequence=True, expert=2 if model in TINY_MIXTURES else 1)
    case = Case(model, MODELS[model], parallel, Train(), TINY_PAIRS, trainer="core")
    assert keys_of_transformer_engine(case, tmp_path) == keys_of_conversion(case, tmp_path)


@pytest.mark.parametrize("case", [*DENSE, *mixture_cases()], ids=lambda case: case.key)
def test_a_rank_trains_two_steps_saves_and_resumes(case: Case, checkpoints: Path) -> None:
    """With its reference before, from a checkpoint that this megatron-core's local layers have written."""
    if case.precision.kind == "fp8" and _TRANSFORMER_ENGINE >= (2, 16):
        pytest.skip("from 2.16 on the compiled module makes FP8 tensors, and the stand-in for it does not")
    ledger = rehearse_and_resume(replace(saving(case, checkpoints), trainer="core"))
    assert len(ledger.steps) == STEPS
    for step in [*ledger.steps, *ledger.resumed]:
        assert_sound(case, step, ledger.microbatches)
        assert step.live["gradients"] == pytest.approx(2 * step.live["weights"], rel=0.01) or case.train.peft
        assert step.flops == ledger.steps[0].flops
    # The first of a rank's replicas, which writes the optimizer's state, has other experts.
    is_replica = case.rank % (case.parallel.world_size // case.parallel.pipeline) >= case.parallel.tensor
    assert len(ledger.resumed) == (0 if case.parallel.expert > 1 and is_replica else 1)


def test_a_mixture_computes_and_sends_what_its_formula_says() -> None:
    """Each token meets the experts that it takes, wherever they are, and its state goes there and back, twice."""
    (case,) = [case for case in mixture_cases() if case.name == "qwen3_moe, DP2 EP2"]
    ledger = rehearse(case)
    tokens = case.pairs.count // 2 * 2 * (case.pairs.prompt + case.pairs.response)  # of this replica
    layers = ledger.steps[0].flops["layers"] / 3  # forward, and for the gradients of inputs and weights
    model = case.model
    hidden, taken = model["hidden_size"], model["num_experts_per_tok"]
    attention = hidden * model["head_dim"] * (2 * model["num_attention_heads"] + 2 * model["num_key_value_heads"])
    dense = 3 * hidden * model["intermediate_size"]
    mixed = taken * 3 * hidden * model["moe_intermediate_size"] + hidden * model["num_experts"]
    assert layers == pytest.approx(2 * tokens * (4 * attention + dense + 3 * mixed), rel=1e-3)
    there_and_back = 2 * hidden * BF16 + FP32  # with the weight that the router gives it
    sent = ledger.steps[0].bytes_sent["alltoall_base EXPERT_MODEL_PARALLEL_GROUP"]
    assert sent == 3 * tokens * taken * 2 * there_and_back
