"""The planner's estimate of a rank, held against every ledger that is committed."""

from __future__ import annotations

import pytest

from tests.rehearsal.case import Case
from tests.rehearsal.cases import preset_cases, tiny_case_of
from tests.rehearsal.committed import Collected, committed
from tests.rehearsal.drawn import DRAWN, drawn_cases
from tests.rehearsal.estimated import errors
from tests.rehearsal.models import OF_MODELS, model_cases
from tests.rehearsal.run import rehearse

MEMORY, PRODUCTS, SENT = 0.05, 0.01, 0.02


OF_COMMITTED_MODELS = [case for case in model_cases() if committed(case.key, OF_MODELS) is not None]


@pytest.mark.parametrize("case", [*preset_cases(), *OF_COMMITTED_MODELS, *drawn_cases()], ids=lambda case: case.key)
def test_a_rank_of_a_real_model(case: Case) -> None:
    ledger = committed(case.key) or committed(case.key, OF_MODELS) or Collected(DRAWN).get(case.key)
    assert ledger is not None, "python -m tests.rehearsal -m tests.rehearsal.drawn writes it"
    found = errors(case, ledger)
    assert abs(found.memory) < MEMORY
    assert abs(found.weights) < 1e-5
    assert abs(found.products) < PRODUCTS
    assert abs(found.sent) < SENT


def test_every_tiny_rank() -> None:
    """What they send is `test_traffic.py`'s: a state that is saved moves some of it from one step to the other."""
    for ledger in Collected():
        found = errors(tiny_case_of(ledger.key), ledger)
        assert abs(found.memory) < MEMORY, ledger.key
        assert abs(found.products) < PRODUCTS, ledger.key


def test_a_drawn_rank_takes_what_is_committed() -> None:
    """One of them, rehearsed again."""
    case = min(drawn_cases(), key=lambda case: case.model["num_hidden_layers"] * case.pairs.count)
    assert Collected(DRAWN).get(case.key) == rehearse(case)
