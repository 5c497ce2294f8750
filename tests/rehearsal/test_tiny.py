"""One rank of every kind of layout trains, saves and resumes, and what it takes is what it may take."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.rehearsal.case import STEPS, Case
from tests.rehearsal.cases import saving, tiny_cases
from tests.rehearsal.committed import Collected, differences
from tests.rehearsal.run import rehearse_and_resume
from tests.rehearsal.soundness import assert_sound


@pytest.fixture(scope="module")
def collected() -> Collected:
    return Collected()


@pytest.mark.parametrize("case", tiny_cases(), ids=lambda case: case.key)
def test_a_rank_trains_two_steps_saves_and_resumes(case: Case, checkpoints: Path, collected: Collected) -> None:
    """After a change that is meant: `make rehearse-all`, and read the difference."""
    ledger = rehearse_and_resume(saving(case, checkpoints))
    known = collected.get(case.key)
    assert known is not None, "make rehearse-all writes it"
    assert differences(known, ledger) == []
    assert len(ledger.steps) == STEPS
    for step in ledger.steps:
        assert step.live["optimizer"] > ledger.before["optimizer"]
        assert_sound(case, step, ledger.microbatches)
    (resumed,) = ledger.resumed  # computes and holds what the second step did
    assert_sound(case, resumed, ledger.microbatches)
    assert resumed.flops == ledger.steps[1].flops
    for kind in ("weights", "gradients", "optimizer"):
        assert resumed.live[kind] == ledger.steps[1].live[kind], kind
