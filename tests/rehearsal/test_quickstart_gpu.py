"""`experiment=quickstart-gpu` trains in each of its layouts, in bf16 and FP8, on the first and the last rank."""

from __future__ import annotations

import pytest

from nemo_sspo.config.load import load_experiment
from nemo_sspo.estimate.rank import StepPairs
from tests.rehearsal.case import STEPS, case_of
from tests.rehearsal.run import rehearse

TOY = {
    "model_type": "llama",
    "vocab_size": 1536,
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 1024,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10_000.0,
    "tie_word_embeddings": False,
}
"""A policy of the size that scripts/toy makes."""


@pytest.mark.parametrize("precision", ["bf16", "fp8"])
@pytest.mark.parametrize(("parallel", "rank"), [("single", 0), ("tp2_pp2", 0), ("tp2_pp2", 3)])
def test_it_trains_two_steps(parallel: str, rank: int, precision: str) -> None:
    experiment = load_experiment(["experiment=quickstart-gpu", f"parallel={parallel}", f"precision={precision}"])
    ledger = rehearse(case_of(experiment, TOY, StepPairs(32, 20, 16), rank=rank))
    assert len(ledger.steps) == STEPS
    assert ledger.steps[1].live["optimizer"] > 0
    assert [step.doubles for step in ledger.steps] == [0, 0]
    assert ({"send pp", "recv pp"} <= ledger.steps[1].calls.keys()) is (parallel != "single")
