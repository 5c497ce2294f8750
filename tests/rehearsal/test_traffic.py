"""A rank says what layout, model and batch ask for, call by call and byte by byte, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch.distributed as dist

from tests.rehearsal.case import STEPS, Case
from tests.rehearsal.cases import FACTORS, preset_cases, tiny_case
from tests.rehearsal.committed import committed
from tests.rehearsal.expected.traffic import expected_traffic
from tests.rehearsal.ledger import Ledger
from tests.rehearsal.plant import around_the_loss
from tests.rehearsal.run import rehearse

_PLAIN = {factor: values[0] for factor, values in FACTORS.items()}


def layout(**factors: Any) -> Case:
    return tiny_case({**_PLAIN, **factors})


def assert_as_expected(case: Case, ledger: Ledger) -> None:
    expected = expected_traffic(case)
    assert ledger.microbatches == expected.microbatches
    assert len(ledger.steps) == STEPS
    for step in ledger.steps:
        assert step.calls == expected.calls
        assert step.bytes_sent == expected.bytes_sent


@pytest.mark.parametrize("recompute", ["none", "full"])
def test_tensor_parallelism_without_sequence_parallelism(recompute: str) -> None:
    case = layout(tensor=2, recompute=recompute)
    case = replace(case, parallel=case.parallel.model_copy(update={"sequence": False}))
    assert_as_expected(case, rehearse(case))


@pytest.mark.parametrize("case", preset_cases(), ids=lambda case: case.key)
def test_a_committed_ledger_says_what_it_must(case: Case) -> None:
    ledger = committed(case.key)
    assert ledger is not None
    assert_as_expected(case, ledger)


def test_one_all_reduce_too_many_is_no_longer_as_expected() -> None:
    case = layout(tensor=2)
    ledger = rehearse(case, around_the_loss(dist.all_reduce))
    with pytest.raises(AssertionError, match="allreduce world"):
        assert_as_expected(case, ledger)
