"""The ranks of the presets, held against what is committed."""

from __future__ import annotations

from tests.rehearsal.case import Case
from tests.rehearsal.cases import preset
from tests.rehearsal.committed import committed, differences
from tests.rehearsal.run import rehearse
from tests.rehearsal.table import GPU_BYTES

# The last ranks have the head; mistral-7b's and llama3-8b's first and last ones hold as much as each other.
CASES = [preset("llama3-8b"), preset("mistral-7b").at(7), preset("llama3-70b").at(31)]


def assert_as_committed(case: Case) -> None:
    """After a change that is meant: `make rehearse`, and read the difference."""
    known = committed(case.key)
    assert known is not None, "make rehearse writes it"
    found = rehearse(case)
    assert differences(known, found) == []
    assert found.peak_bytes < GPU_BYTES
