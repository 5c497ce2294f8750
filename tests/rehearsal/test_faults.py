"""Planted faults: what would go wrong on a cluster alone goes wrong here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from nemo_sspo.estimate.rank import StepPairs
from tests.rehearsal.case import Case
from tests.rehearsal.cases import FACTORS, TINY_HEAD_TOKENS, saving, tiny_case
from tests.rehearsal.ledger import Ledger
from tests.rehearsal.plant import around_the_loss
from tests.rehearsal.run import RehearsalError, rehearse
from tests.rehearsal.soundness import assert_sound

_PLAIN = {factor: values[0] for factor, values in FACTORS.items()}


def plain(**factors: Any) -> Case:
    """Tensor-parallel ranks of bf16 Llamas, unless told otherwise."""
    return tiny_case({**_PLAIN, "tensor": 2, **factors})


@pytest.fixture(scope="module")
def sound() -> Ledger:
    return rehearse(plain())


def test_the_case_without_a_fault_is_sound(sound: Ledger) -> None:
    for step in sound.steps:
        assert_sound(plain(), step, sound.microbatches)


def test_a_tensor_of_the_host_in_a_collective() -> None:
    def plant() -> None:
        from nemo_sspo.megatron.nemo import loss_reduction

        loss_reduction.on_device = torch.tensor

    # The last stage sends its loss to rank 0, where both are in one pipeline.
    with pytest.raises(RehearsalError, match="No backend type associated with device type cpu"):
        rehearse(plain(tensor=1, pipeline="2", rank="last"), plant)


def test_a_key_of_transformer_engine_that_conversion_does_not_know(checkpoints: Path) -> None:
    def plant() -> None:
        from nemo_sspo.megatron.nemo import model_config

        right = model_config.nemo_config

        def wrong(*args: Any, **values: Any) -> Any:
            config = right(*args, **values)
            config.add_bias_linear = True
            return config

        model_config.nemo_config = wrong

    with pytest.raises(RehearsalError, match=r"UserError: .*tensor '.*bias' is missing"):
        rehearse(saving(plain(), checkpoints), plant)


def test_a_float64() -> None:
    ledger = rehearse(plain(), around_the_loss(lambda loss: loss.double() + 1))
    with pytest.raises(AssertionError):
        assert_sound(plain(), ledger.steps[1], ledger.microbatches)
    assert ledger.steps[1].doubles > 0


@pytest.mark.parametrize(
    ("wait", "counted"),
    [("item", "item"), ("tolist", "tolist"), ("nonzero", "nonzero"), ("cpu", "copy to the host")],
)
def test_the_host_waits_in_a_microbatch(wait: str, counted: str, sound: Ledger) -> None:
    def ask(loss: torch.Tensor) -> None:
        getattr(torch.ones(1, dtype=torch.bool, device=loss.device), wait)()

    ledger = rehearse(plain(), around_the_loss(ask))
    assert ledger.steps[1].waits[counted] == sound.steps[1].waits.get(counted, 0) + ledger.microbatches
    with pytest.raises(AssertionError, match=counted):
        assert_sound(plain(), ledger.steps[1], ledger.microbatches)


def test_logits_of_all_tokens() -> None:
    def plant() -> None:
        from nemo_sspo.megatron.loss import loss as preference_loss

        tiled = preference_loss.one_pass_logps
        preference_loss.one_pass_logps = lambda *args, **options: tiled(*args, **options | {"chunk_tokens": 10**6})

    # More response tokens than channels, so that logits of all are larger than the weight's gradient.
    case = plain()
    model = {**case.model, "vocab_size": 7680, "max_position_embeddings": 256}
    case = replace(case, model=model, pairs=StepPairs(count=8, prompt=8, response=200))
    ledger = rehearse(case, plant)
    with pytest.raises(AssertionError, match=str(TINY_HEAD_TOKENS)):
        assert_sound(case, ledger.steps[1], ledger.microbatches)


def test_one_all_reduce_too_many(sound: Ledger) -> None:
    ledger = rehearse(plain(), around_the_loss(dist.all_reduce))
    calls = dict(ledger.steps[1].calls)
    assert calls != sound.steps[1].calls
    assert calls.pop("allreduce world") == sound.steps[1].calls["allreduce world"] + ledger.microbatches
