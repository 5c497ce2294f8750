"""What a rank takes without NeMo is what it takes under NeMo, whose ledgers are committed, or less."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.rehearsal.case import Case
from tests.rehearsal.cases import preset_cases, saving, tiny_cases
from tests.rehearsal.committed import Collected, committed
from tests.rehearsal.ledger import Step
from tests.rehearsal.run import rehearse

KEPT = ("weights", "gradients", "optimizer")


def assert_no_more(core: Step, nemo: Step) -> None:
    """The same products and the same traffic; no more memory, and no more waiting for the GPU."""
    assert (core.flops, core.calls, core.bytes_sent) == (nemo.flops, nemo.calls, nemo.bytes_sent)
    assert [core.live[kind] for kind in KEPT] == [nemo.live[kind] for kind in KEPT]
    assert core.peak_bytes <= nemo.peak_bytes
    assert sum(core.waits.values()) <= sum(nemo.waits.values())
    assert sum(core.waits_around.values()) <= sum(nemo.waits_around.values())


@pytest.mark.parametrize("case", tiny_cases(), ids=lambda case: case.key)
def test_a_rank_of_every_pair_of_settings(case: Case, checkpoints: Path) -> None:
    """With its reference before, a state in the background, and on the first rank a second attempt from it."""
    known = Collected().get(case.key)
    assert known is not None
    found = rehearse(replace(saving(case, checkpoints), trainer="core"))
    for core, nemo in zip([*found.steps, *found.resumed], [*known.steps, *known.resumed], strict=True):
        assert_no_more(core, nemo)


@pytest.mark.parametrize("key", ["llama3-1b.rank_0", "llama3-70b.rank_31"])
def test_a_large_rank(key: str) -> None:
    (case,) = [case for case in preset_cases() if case.key == key]
    known = committed(key)
    assert known is not None
    for core, nemo in zip(rehearse(replace(case, trainer="core")).steps, known.steps, strict=True):
        assert_no_more(core, nemo)
