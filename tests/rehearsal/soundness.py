"""What a step of a rank may take, whatever its case."""

from __future__ import annotations

from tests.rehearsal.case import Case
from tests.rehearsal.cases import TINY_HEAD_TOKENS
from tests.rehearsal.ledger import Step
from tests.rehearsal.synchronisations import most_waits


def assert_sound(case: Case, step: Step, microbatches: int) -> None:
    """Nothing in float64, no logits beyond a tile, and no more waits for the GPU than are known."""
    assert step.doubles == 0
    rows, *columns = step.largest["shape"]
    assert columns != [case.model["vocab_size"] // case.parallel.tensor] or rows <= TINY_HEAD_TOKENS
    chunks = case.parallel.virtual_pipeline or 1
    layers = case.model["num_hidden_layers"] // case.parallel.pipeline
    is_plain = case.model["model_type"] == "llama" and case.parallel.context == 1 and not case.train.share_prompt
    mixtures = layers if "num_experts_per_tok" in case.model else 0
    most = most_waits(
        microbatches=microbatches * chunks, layers=layers, mixtures=mixtures, chunks=chunks, is_plain=is_plain
    )
    assert {what: count for what, count in step.waits.items() if count > most.get(what, 0)} == {}
