"""First, middle and last rank of every preset, and a 1B model on one GPU: they take what is committed, and fit."""

from __future__ import annotations

import pytest

from tests.rehearsal.case import Case
from tests.rehearsal.cases import preset_cases
from tests.rehearsal.committed import WHOLE_BATCHES, committed, differences
from tests.rehearsal.everything import takes_no_more_memory
from tests.rehearsal.page import MEMORY_PAGE, memory_page
from tests.rehearsal.run import rehearse
from tests.rehearsal.table import GPU_BYTES


@pytest.mark.parametrize("case", preset_cases(), ids=lambda case: case.key)
def test_a_ranks_figures_are_the_committed_ones(case: Case) -> None:
    """After a change that is meant: `make rehearse`, and read the difference."""
    known = committed(case.key)
    assert known is not None, "make rehearse writes it"
    found = rehearse(case)
    assert differences(known, found) == []
    assert found.peak_bytes < GPU_BYTES


@pytest.mark.parametrize("case", preset_cases(full_batch=True), ids=lambda case: case.key)
def test_a_whole_batch_takes_no_more_memory_and_computes_as_much_more_as_it_has_microbatches(case: Case) -> None:
    few, whole = committed(case.key), committed(case.key, WHOLE_BATCHES)
    assert few is not None
    assert whole is not None, "make rehearse-all writes it"
    assert takes_no_more_memory(few, whole)
    for one, other in zip(few.steps, whole.steps, strict=True):
        for place, flops in one.flops.items():  # the layers' have some of the step's metrics among them
            more = whole.microbatches / few.microbatches
            assert other.flops[place] == pytest.approx(more * flops, rel=1e-5 if place == "layers" else 0), place


def test_the_page_is_made_of_the_committed_figures() -> None:
    assert all(committed(case.key) for case in preset_cases()), "make rehearse writes them"
    assert MEMORY_PAGE.read_text() == memory_page()
