"""The training benchmarks on a processor, through NeMo's trainer: what they compare differs in what they say alone."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("nemo.collections.llm")

import torch

from benchmarks.gpu import precision, train_step
from benchmarks.gpu.place import Place
from benchmarks.gpu.precision import Found
from benchmarks.gpu.train_step import BASE, VARIANTS, Steps, goals, reason
from benchmarks.gpu.world import World, layers_that_fit

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here: make bench-gpu")

HERE, GPU = Place("cpu", small=True), Place("cuda", small=False)
GIB = 2**30


def test_layers_that_fit() -> None:
    """All of an 8B fit into no GPU of today, and an empty one of 80 GB takes some."""
    assert layers_that_fit(10 * GIB, World()) == 1
    assert 6 <= layers_that_fit(79 * GIB, World()) <= 9
    assert 16 <= layers_that_fit(139 * GIB, World()) <= 20
    assert layers_that_fit(1000 * GIB, World()) == 32


def test_variants_train_alike_and_what_is_refused_is_told(tmp_path: Path) -> None:
    names = [BASE, "padded", "fp8, tensorwise"]
    found = train_step.run(HERE, World.of(HERE, None), names, tmp_path)
    packed, padded, fp8 = found.rows
    assert packed[5] == pytest.approx(padded[5], rel=1e-3)  # the same pairs in the same steps
    assert packed[6] == pytest.approx(padded[6], rel=1e-2)
    assert packed[1] > 0
    assert fp8 == ("fp8, tensorwise", *[None] * 6)
    assert found.notes[-1].startswith("fp8, tensorwise: precision=fp8 needs Transformer Engine")
    assert {goal.is_met for goal in found.goals} == {None}


def test_goals_are_ratios_of_whole_steps() -> None:
    def steps(seconds: float, peak: float = 10.0, mfu: float = 0.55) -> Steps:
        return Steps([{"seconds": seconds, "peak_memory_gib": peak, "mfu": mfu}])

    found = dict.fromkeys(VARIANTS, Steps(refusal="no")) | {BASE: steps(2.0), "padded": steps(4.0)}
    found |= {"lambda = 0": steps(1.9, 9.0), "fp8, tensorwise": steps(1.6)}
    assert [(goal.measured, goal.is_met) for goal in goals(found, GPU)] == [
        ("0.550", True),
        ("2.000", True),
        ("1.053", False),
        ("1.111", False),
        ("1.250", False),
    ]


TORCHRUNS = """
torch.distributed.elastic.multiprocessing.errors.ChildFailedError: 
============================================================
  exitcode  : -9 (pid: 7)
============================================================
"""


@pytest.mark.parametrize(
    ("log", "said"),
    [
        ("a warning\nerror: use bf16" + TORCHRUNS, "use bf16"),
        ("[rank0]: torch.OutOfMemoryError: 2 GiB" + TORCHRUNS, "[rank0]: torch.OutOfMemoryError: 2 GiB"),
        ("step 1" + TORCHRUNS, "  exitcode  : -9 (pid: 7)"),
        ("", "no output"),
    ],
)
def test_the_reason_is_the_ranks_where_it_gave_one(log: str, said: str) -> None:
    assert reason(log) == said


def test_difference_of_gradients() -> None:
    base = Found(2.0, {"a": torch.tensor([3.0, 0.0]), "b": torch.tensor([4.0])}, 1.0)
    found = Found(2.1, {"a": torch.tensor([3.0, 5.0]), "b": torch.tensor([4.0])}, 1.0)
    assert precision.difference(found, base) == pytest.approx((0.05, 1.0, 25 / (50 * 25) ** 0.5))


def test_precisions_are_near_one_another(tmp_path: Path) -> None:
    found = precision.run(HERE, World.of(HERE, None), tmp_path)
    (_, *_, loss, gradient, cosine), again, bf16 = found.rows
    assert (loss, gradient, cosine) == pytest.approx((0.0, 0.0, 1.0))
    assert again[4:6] == (0.0, 0.0)
    assert 0 < bf16[4] < 1e-2
    assert 0 < bf16[5] < 5e-2
    assert 0.99 < bf16[6] < 1
