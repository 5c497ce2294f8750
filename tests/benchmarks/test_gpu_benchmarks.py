"""The GPU benchmarks on a processor: every line but the CUDA events, and that they measure what they say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("megatron.core")

import torch
import torch.distributed as dist

from benchmarks import table
from benchmarks.gpu import gemm, head
from benchmarks.gpu.place import Place, parser, place_of
from benchmarks.head import Sizes, truth
from benchmarks.measure import error

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here: make bench-gpu")

HERE = Place("cpu", small=True)
SHAPE = gemm.SMALL[0]


@pytest.fixture
def group() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_every_file_with_a_command_is_on_the_page() -> None:
    folder = Path(gemm.__file__).parent
    files = {f"gpu.{path.stem}" for path in folder.glob("*.py") if "def main()" in path.read_text()}
    assert files == set(table.ON_A_GPU)
    described = re.findall(r"^\| `(\w+)` \|", (folder / "README.md").read_text(), re.MULTILINE)
    assert {f"gpu.{name}" for name in described} == files


def test_nothing_that_means_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table.Benchmark, "publish", lambda *_: pytest.fail("kept"))
    HERE.publish(gemm.run(HERE))


def test_a_missing_gpu_is_told() -> None:
    with pytest.raises(SystemExit, match="no CUDA device here; --device cpu --small"):
        place_of(parser("").parse_args([]))


def test_the_rate_of_three_products_is_their_work_over_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gemm.measure, "seconds", lambda *_, **__: {"logits": 1.0, "dh": 2.0, "dw": 4.0})
    work = 2 * 64 * 32 * 256
    assert gemm.rates(SHAPE, "cpu") == {"logits": work, "dh": work / 2, "dw": work / 4, "all": 3 * work / 7}


def test_truth_on_a_slice_is_autograds(group: None) -> None:
    """By another way: double precision, all tokens at once, and differentiated by torch."""
    tokens, hidden, vocab = SHAPE
    sizes = head.EvenSizes(tokens // head.SMALL_RESPONSE, 1, head.SMALL_RESPONSE, hidden, vocab, 8, torch.bfloat16)
    expected_hidden, expected_weight = truth(sizes, "cpu")
    found_hidden, found_weight = head.truth_on_a_slice(head.problem_of(SHAPE, HERE))
    assert error(found_hidden, expected_hidden[:, 0]) < 1e-5
    assert error(found_weight, expected_weight[: head.VOCAB_SLICE]) < 1e-5


def test_the_work_is_of_t_response_tokens() -> None:
    problem = head.problem_of(SHAPE, HERE)
    assert int((problem.index_BS >= 0).sum()) == SHAPE[0]
    assert Sizes.lengths is not head.EvenSizes.lengths


def test_every_head_is_measured() -> None:
    found = head.run(HERE)
    names = [row[3] for row in found.rows if row[:3] == SHAPE]
    assert names == list(head.heads(HERE))
    assert all(row[8] < 0.02 and row[9] < 0.02 for row in found.rows if row[3] != head.LIGER)
    (goal,) = found.goals
    assert goal.is_met is None


def test_a_head_that_does_not_fit_leaves_its_figures_out(group: None) -> None:
    def greedy(_problem: object) -> torch.Tensor:
        raise torch.OutOfMemoryError

    problem = head.problem_of(SHAPE, HERE)
    assert head.measured("greedy", greedy, problem, head.truth_on_a_slice(problem)) == head.Found(None)
