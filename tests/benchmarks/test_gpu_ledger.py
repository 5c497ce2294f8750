"""The ledger's figures are found and held against the GPU's to within their bound."""

import pytest

pytest.importorskip("megatron.core")
pytest.importorskip("nemo.collections.llm")

from benchmarks.gpu import ledger
from benchmarks.gpu.place import Place
from tests.rehearsal.committed import commit
from tests.rehearsal.ledger import Ledger, Step

GPU, CPU = Place("cuda", small=False), Place("cpu", small=True)
GIB = 2**30


def step(**peak: int) -> Step:
    return Step({kind: gib * GIB for kind, gib in peak.items()}, {}, {}, {}, {}, {}, {}, 0, {})


def test_the_committed_ledger_is_read(tmp_path):
    commit(Ledger("llama3-1b.rank_0", 4, {}, [step(weights=10, head=2), step(weights=10, optimizer=6)]), tmp_path)
    assert ledger.rehearsed("llama3-1b.rank_0", tmp_path) == [12, 16]
    with pytest.raises(SystemExit, match=r"no ledger of llama3-70b.rank_0 lies in tests/rehearsal; make rehearse"):
        ledger.rehearsed("llama3-70b.rank_0", tmp_path)


@pytest.mark.parametrize(
    ("found", "met"), [([12.1, 16.7], True), ([12.1, 17.0], False), ([12.0, 15.1], False), ([99.0, 16.0], True)]
)
def test_the_last_peak_is_judged(found, met):
    (goal,) = ledger.compared([12, 16], found, GPU).goals
    assert goal.is_met is met


def test_a_processor_judges_nothing():
    assert ledger.compared([12, 16], [1, 2], CPU).goals[0].is_met is None


def test_a_peak_of_the_first_step_lasts():
    rows = ledger.compared([20, 16], [20.0, 20.0], GPU).rows
    assert [row[1] for row in rows] == [20, 20]


def test_the_rehearsed_case_trains(tmp_path):
    """On the processor, and tiny: the same lines."""
    first, second = ledger.measured(CPU, tmp_path / "run")
    assert 0 < first <= second
