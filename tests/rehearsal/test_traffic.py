"""A rank says what layout, model and batch ask for, call by call and byte by byte, and nothing else."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch.distributed as dist

from nemo_sspo.estimate.traffic.traffic import expected_traffic
from tests.rehearsal.case import STEPS, Case
from tests.rehearsal.cases import FACTORS, preset_cases, tiny_case, tiny_case_of, tiny_cases
from tests.rehearsal.committed import LEDGERS, WHOLE_BATCHES, Collected, committed
from tests.rehearsal.ledger import Ledger
from tests.rehearsal.plant import around_the_loss
from tests.rehearsal.run import rehearse

_PLAIN = {factor: values[0] for factor, values in FACTORS.items()}


def layout(**factors: Any) -> Case:
    return tiny_case({**_PLAIN, **factors})


def assert_as_expected(case: Case, ledger: Ledger) -> None:
    expected = expected_traffic(case.estimated)
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


def test_replicas_that_each_have_the_whole_optimizer() -> None:
    case = layout(data="2")
    case = replace(case, parallel=case.parallel.model_copy(update={"distributed_optimizer": False}))
    assert_as_expected(case, rehearse(case))


@pytest.mark.parametrize("full_batch", [False, True])
@pytest.mark.parametrize("rank", range(len(preset_cases())))
def test_a_committed_ledger_says_what_it_must(rank: int, full_batch: bool) -> None:
    case = preset_cases(full_batch=full_batch)[rank]
    ledger = committed(case.key, WHOLE_BATCHES if full_batch else LEDGERS)
    assert ledger is not None
    assert_as_expected(case, ledger)


_SAVING = ("allreduce world", "barrier world", "broadcast world", "gather gloo dp_cp")
"""What a rank that saves states says beside: the formula is without."""


def test_every_collected_ledger_says_what_it_must() -> None:
    collected = Collected()
    assert {case.key for case in tiny_cases()} <= {ledger.key for ledger in collected}
    for ledger in collected:
        case = tiny_case_of(ledger.key)
        expected = expected_traffic(case.estimated)
        assert ledger.microbatches == expected.microbatches, ledger.key
        assert _of_all([step.calls for step in ledger.steps]) == _of_all(STEPS * [expected.calls]), ledger.key
        assert _of_all([step.bytes_sent for step in ledger.steps]) == _of_all(STEPS * [expected.bytes_sent]), ledger.key
        for step in ledger.resumed:
            assert (step.calls, step.bytes_sent) == (expected.calls, expected.bytes_sent), ledger.key


def _of_all(steps: list[dict[str, int]]) -> dict[str, int]:
    """Where communication overlaps, a state that is saved has the weights gathered a step earlier."""
    total: Counter[str] = Counter()
    for step in steps:
        total.update(step)
    return {name: number for name, number in total.items() if name not in _SAVING}


def test_one_all_reduce_too_many_is_no_longer_as_expected() -> None:
    case = layout(tensor=2)
    ledger = rehearse(case, around_the_loss(dist.all_reduce))
    with pytest.raises(AssertionError, match="allreduce world"):
        assert_as_expected(case, ledger)
