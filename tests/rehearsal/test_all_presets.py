"""First, middle and last rank of every preset, and a 1B model on one GPU: those that test_presets.py leaves out."""

from __future__ import annotations

import pytest

from tests.rehearsal.case import Case
from tests.rehearsal.cases import preset_cases
from tests.rehearsal.presets import CASES, assert_as_committed

_TAKEN = {case.key for case in CASES}


@pytest.mark.parametrize("case", [case for case in preset_cases() if case.key not in _TAKEN], ids=lambda case: case.key)
def test_a_ranks_figures_are_the_committed_ones(case: Case) -> None:
    assert_as_committed(case)
