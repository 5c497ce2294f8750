"""One rank of every kind of layout trains, saves and resumes, and what it takes is what it may take."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.rehearsal.case import STEPS, Case
from tests.rehearsal.cases import TINY_HEAD_TOKENS, tiny_cases
from tests.rehearsal.run import rehearse
from tests.rehearsal.synchronisations import most_waits


@pytest.mark.parametrize("case", tiny_cases(None), ids=lambda case: case.key)
def test_a_rank_trains_two_steps_saves_and_resumes(case: Case, checkpoints: Path) -> None:
    family = case.model["model_type"]
    train = case.train.model_copy(update={"checkpoint_every_steps": 1})
    ledger = rehearse(replace(case, train=train, checkpoint=checkpoints / family / "nemo"))
    assert len(ledger.steps) == STEPS
    first, second = ledger.steps
    assert first.live["optimizer"] == second.live["optimizer"] > 0
    for step in ledger.steps:
        assert step.doubles == 0
        assert _is_within(step.waits, most_waits(case, ledger.microbatches))
        rows, *columns = step.largest["shape"]
        assert columns != [_vocabulary(case)] or rows <= TINY_HEAD_TOKENS


def _vocabulary(case: Case) -> int:
    return case.model["vocab_size"] // case.parallel.tensor


def _is_within(waits: dict[str, int], most: dict[str, int]) -> bool:
    return all(waits[what] <= most.get(what, 0) for what in waits)
