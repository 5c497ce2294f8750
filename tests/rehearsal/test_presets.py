"""One rank of every preset takes what is committed, and fits in 80 GB; the others' are in test_all_presets.py."""

from __future__ import annotations

import pytest

from tests.rehearsal.case import Case
from tests.rehearsal.cases import preset_cases
from tests.rehearsal.committed import committed
from tests.rehearsal.presets import CASES, assert_as_committed
from tests.rehearsal.table import MEMORY_PAGE as PAGE
from tests.rehearsal.table import memory_page


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.key)
def test_a_ranks_figures_are_the_committed_ones(case: Case) -> None:
    assert_as_committed(case)


def test_the_page_is_made_of_the_committed_figures() -> None:
    ledgers = [committed(case.key) for case in preset_cases()]
    assert None not in ledgers, "make rehearse writes them"
    assert PAGE.read_text() == memory_page([ledger for ledger in ledgers if ledger is not None])
