"""First, middle and last rank of every preset, and a 1B model on one GPU: they take what is committed, and fit."""

from __future__ import annotations

import pytest

from tests.rehearsal.case import Case
from tests.rehearsal.cases import preset_cases
from tests.rehearsal.committed import committed, differences
from tests.rehearsal.run import rehearse
from tests.rehearsal.table import GPU_BYTES, memory_page
from tests.rehearsal.table import MEMORY_PAGE as PAGE


@pytest.mark.parametrize("case", preset_cases(), ids=lambda case: case.key)
def test_a_ranks_figures_are_the_committed_ones(case: Case) -> None:
    """After a change that is meant: `make rehearse`, and read the difference."""
    known = committed(case.key)
    assert known is not None, "make rehearse writes it"
    found = rehearse(case)
    assert differences(known, found) == []
    assert found.peak_bytes < GPU_BYTES


def test_the_page_is_made_of_the_committed_figures() -> None:
    ledgers = [committed(case.key) for case in preset_cases()]
    assert None not in ledgers, "make rehearse writes them"
    assert PAGE.read_text() == memory_page([ledger for ledger in ledgers if ledger is not None])
