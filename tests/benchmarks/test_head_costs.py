"""What the log-prob heads cost, counted: a change that computes or holds more fails here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("megatron.core")

import torch
import torch.distributed as dist

from benchmarks.head import HEADS, Problem, Sizes, backward, counted, truth
from benchmarks.measure import error
from nemo_sspo.megatron import one_pass_head

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="bytes are counted as the CPU's allocator sees them")

SIZES = Sizes(rows=4, prompt=24, response=40, hidden=64, vocab=2000, chunk=48, dtype=torch.float32)
IN_BF16 = Sizes(rows=4, prompt=24, response=40, hidden=64, vocab=2000, chunk=48, dtype=torch.bfloat16)
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


ROWS_AT_ONCE = 250


def allowed_bytes(sizes: Sizes) -> int:
    """Forward holds the response tokens' states and their gradient, the weight's gradient in fp32 and a tile's logits
    in fp32; [C] vectors and indices: 2 %. In bf16 the logits are there a second time, and so are some rows of the
    weight's gradient, which a CPU casts to fp32 to add them; and its products may copy the weight, as its kernels
    like. A tile more, or all rows of the gradient at once, are above that."""
    width, is_fp32 = sizes.dtype.itemsize, sizes.dtype == torch.float32
    states = 2 * sum(sizes.lengths) * sizes.hidden * width
    logits = max(sizes.lengths) * sizes.vocab * (4 if is_fp32 else 4 + width)
    in_bf16 = ROWS_AT_ONCE * sizes.hidden * (width + 4) + sizes.vocab * sizes.hidden * width
    return int(1.02 * (states + 4 * sizes.vocab * sizes.hidden + logits + (0 if is_fp32 else in_bf16)))


@pytest.mark.parametrize("sizes", [SIZES, IN_BF16], ids=["fp32", "bf16"])
def test_peak_of_the_one_pass_head(group: None, sizes: Sizes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_pass_head, "_ROWS_AT_ONCE", ROWS_AT_ONCE)
    _, peak = counted(sizes)["ours, one pass"]
    assert 0.8 * allowed_bytes(sizes) < peak <= allowed_bytes(sizes)


def test_peak_of_the_others_grows_with_their_tokens(costs: dict[str, tuple[int, int]]) -> None:
    """So that the comparison is one: all logits of all slots are there at least twice, forward and gradient."""
    logits = 4 * SIZES.slots * SIZES.vocab
    for name in ("SPPO trainer's (all logits)", "TRL's (all logits, selective)"):
        assert costs[name][1] > 2 * logits
    assert costs["ours, one pass"][1] < 0.75 * costs["NeMo-RL's (chunks, computed twice)"][1]
