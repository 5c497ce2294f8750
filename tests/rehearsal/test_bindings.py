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

LOGGED = {"barrier world": 1, "send world": 4, "recv world": 4}
"""Once a step NeMo's ranks wait for each other, and the last pipeline stage sends the first one the loss to log: bytes
of each."""
KEPT = ("weights", "gradients", "optimizer")


def assert_no_more(core: Step, nemo: Step, *, kernels: bool) -> None:
    """The same products and the same traffic; no more memory, and no more waiting for the GPU and for other ranks.

    `kernels`: both take the same ones.
    """
    assert core.flops == nemo.flops
    assert _others(core.calls) == _others(nemo.calls)
    assert _others(core.bytes_sent) == _others(nemo.bytes_sent)
    for call, size in LOGGED.items():
        spared = nemo.calls.get(call, 0) - core.calls.get(call, 0)
        assert spared in (0, 1), call
        assert nemo.bytes_sent.get(call, 0) - core.bytes_sent.get(call, 0) == spared * size, call
    assert [core.live[kind] for kind in KEPT] == [nemo.live[kind] for kind in KEPT]
    # The two take the same fused kernels for Llama; for other families NeMo fuses less, and what they keep differs.
    assert core.peak_bytes <= (1.0 if kernels else 1.01) * nemo.peak_bytes
    assert sum(core.waits.values()) <= sum(nemo.waits.values())
    assert sum(core.waits_around.values()) <= sum(nemo.waits_around.values())


def _others(calls: dict[str, int]) -> dict[str, int]:
    return {call: count for call, count in calls.items() if call not in LOGGED}


@pytest.mark.parametrize("case", tiny_cases(), ids=lambda case: case.key)
def test_a_rank_of_every_pair_of_settings(case: Case, checkpoints: Path) -> None:
    """With its reference before, a state in the background, and on the first rank a second attempt from it."""
    known = Collected().get(case.key)
    assert known is not None
    found = rehearse(replace(saving(case, checkpoints), trainer="core"))
    resumed = known.resumed if case.rank == 0 else []
    for core, nemo in zip([*found.steps, *found.resumed], [*known.steps, *resumed], strict=True):
        assert_no_more(core, nemo, kernels=case.model["model_type"] == "llama")


@pytest.mark.parametrize("key", ["llama3-1b.rank_0", "llama3-70b.rank_31"])
def test_a_large_rank(key: str) -> None:
    (case,) = [case for case in preset_cases() if case.key == key]
    known = committed(key)
    assert known is not None
    for core, nemo in zip(rehearse(replace(case, trainer="core")).steps, known.steps, strict=True):
        assert_no_more(core, nemo, kernels=True)
