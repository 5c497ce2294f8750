"""What the log-prob heads cost, counted: a change that computes or holds more fails here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

pytest.importorskip("megatron.core")

import torch
import torch.distributed as dist

from benchmarks.head import HEADS, Problem, Sizes, backward, counted, truth
from benchmarks.measure import error
from nemo_sspo.megatron.head import common as head_parts
from nemo_sspo.megatron.head import tile_torch

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="bytes are counted as the CPU's allocator sees them")

SIZES = Sizes(rows=4, prompt=24, response=40, hidden=64, vocab=2000, chunk=48, dtype=torch.float32)
TOKENS = sum(SIZES.lengths)


@pytest.fixture(scope="module", autouse=True)
def group() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def costs(group: None) -> dict[str, tuple[int, int]]:
    return counted(SIZES)


def test_all_heads_compute_the_same(group: None) -> None:
    expected = truth(SIZES, "cpu")
    for name, head in HEADS.items():
        for found, right in zip(backward(head, Problem.draw(SIZES, "cpu")), expected, strict=True):
            assert error(found, right) < 1e-5, name


def test_flops(costs: dict[str, tuple[int, int]]) -> None:
    per_token = 2 * SIZES.hidden * SIZES.vocab
    products = {
        "SPPO trainer's (all logits)": 3 * SIZES.slots,
        "TRL's (all logits, selective)": 3 * SIZES.slots,
        "NeMo-RL's (chunks, computed twice)": 4 * SIZES.slots,
        "Liger's (a pair at a time)": 3 * SIZES.slots,
        "ours, recompute": 4 * TOKENS,
        "ours, one pass": 3 * TOKENS,
    }
    assert {name: flops for name, (flops, _) in costs.items()} == {n: per_token * p for n, p in products.items()}


ELEMENTS_AT_ONCE = 2 * 2048
"""Two rows of a tile, which lie 2048 elements apart."""


@pytest.fixture
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """As small against these sizes as the real ones are against a model's."""
    monkeypatch.setattr(tile_torch, "ELEMENTS_ON_CPU", ELEMENTS_AT_ONCE)


def allowed_bytes(sizes: Sizes, tile: int) -> int:
    """A head holds the response tokens' states and their gradient, the weight's gradient and a tile's logits, of which
    two rows are there again; [C] vectors and indices: 3 %. A tile more is above that. All in fp32."""
    states, weight = 2 * sum(sizes.lengths) * sizes.hidden, sizes.vocab * sizes.hidden
    return int(1.03 * 4 * (states + weight + tile * 2048 + ELEMENTS_AT_ONCE))


@pytest.mark.usefixtures("_small_parts")
@pytest.mark.parametrize("head", ["ours, one pass", "ours, recompute"])
def test_peak_of_our_heads(group: None, head: str) -> None:
    """The one-pass head's tile is the longest response; the other's is a chunk, never two of them."""
    _, peak = counted(SIZES)[head]
    allowed = allowed_bytes(SIZES, max(SIZES.lengths) if head == "ours, one pass" else SIZES.chunk)
    assert 0.8 * allowed < peak <= allowed


@pytest.mark.usefixtures("_small_parts")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_tile_is_held_once_and_in_its_own_precision(group: None, dtype: torch.dtype) -> None:
    """Of the peak only the logits grow with a tile: once, and in bf16 without a copy in fp32."""
    small = replace(SIZES, dtype=dtype, chunk=max(SIZES.lengths))
    large = replace(small, chunk=sum(SIZES.lengths[:2]))  # two responses in one tile
    more = (large.chunk - small.chunk) * 2048 * dtype.itemsize
    peaks = [{name: peak for name, (_, peak) in counted(sizes).items()} for sizes in (small, large)]
    for head in ("ours, one pass", "ours, recompute"):
        assert peaks[1][head] - peaks[0][head] == pytest.approx(more, rel=0.03)


@pytest.mark.usefixtures("_small_parts")
def test_the_weights_gradient_is_added_in_bf16_some_rows_at_a_time(
    group: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A product is rounded to bf16 before it is added in fp32: of all rows it would be half a gradient more."""
    peaks = []
    for rows in (250, SIZES.vocab):
        monkeypatch.setattr(head_parts, "ROWS_AT_ONCE", rows)
        peaks.append(counted(replace(SIZES, dtype=torch.bfloat16)))
    for head in ("ours, one pass", "ours, recompute"):
        assert peaks[1][head][1] - peaks[0][head][1] >= 2 * (SIZES.vocab - 250) * SIZES.hidden


def test_peak_of_the_others_grows_with_their_tokens(costs: dict[str, tuple[int, int]]) -> None:
    """So that the comparison is one: all logits of all slots are there at least twice, forward and gradient."""
    logits = 4 * SIZES.slots * SIZES.vocab
    for name in ("SPPO trainer's (all logits)", "TRL's (all logits, selective)"):
        assert costs[name][1] > 2 * logits
    assert costs["ours, one pass"][1] < 0.75 * costs["NeMo-RL's (chunks, computed twice)"][1]
