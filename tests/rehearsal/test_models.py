"""Every model's rank that is committed fits, with S-SPPO or DPO, and is of a case of today; one is rehearsed anew."""

from __future__ import annotations

import pytest

from tests.rehearsal.committed import committed, differences
from tests.rehearsal.models import OF_MODELS, model_cases
from tests.rehearsal.run import rehearse
from tests.rehearsal.table import GPU_BYTES

COMMITTED = sorted(path.stem for path in OF_MODELS.glob("*.json"))
HELD = "gemma-2-9b-s-sppo.rank_0"
"""Of a family that no preset has. Each of the others takes half a minute: `make rehearse` names what differs."""


@pytest.mark.parametrize("key", COMMITTED)
def test_a_rank_fits(key: str) -> None:
    known = committed(key, OF_MODELS)
    assert known is not None
    assert key in {case.key for case in model_cases()}
    assert known.peak_bytes < GPU_BYTES


def test_a_ranks_figures_are_the_committed_ones() -> None:
    (case,) = (case for case in model_cases() if case.key == HELD)
    known = committed(HELD, OF_MODELS)
    assert known is not None
    assert differences(known, rehearse(case)) == []
