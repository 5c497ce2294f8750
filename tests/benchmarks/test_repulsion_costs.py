"""What latent repulsion costs on top of SPPO after the last layer, counted."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("megatron.core")

import torch
import torch.distributed as dist

from benchmarks.measure import error, traffic
from benchmarks.repulsion import Sizes, Step, counted

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="bytes are counted as the CPU's allocator sees them")

SIZES = Sizes(pairs=2, prompt=24, response=40, hidden=64, vocab=2000, chunk=48)


@pytest.fixture(scope="module", autouse=True)
def group() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_no_product_and_no_peak_more(pooling: str) -> None:
    costs = counted(SIZES, pooling=pooling)
    sppo, off, on = costs["SPPO alone"], costs["lambda = 0"], costs["lambda = 1"]
    assert on.flops == off.flops == sppo.flops
    assert max(on.peak, off.peak) <= 1.005 * sppo.peak
    assert on.traffic == off.traffic


@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_what_is_timed_beside_the_head_has_all_that_repulsion_adds(pooling: str) -> None:
    """Every byte that S-SPPO moves and SPPO does not, and few others."""
    costs, step = counted(SIZES, pooling=pooling), Step.draw(SIZES, "cpu", pooling)
    added = costs["lambda = 1"].traffic - costs["SPPO alone"].traffic
    assert added <= traffic(step.beside_the_head) < 1.5 * added


def test_the_baseline_is_sppo() -> None:
    """What the costs are compared with computes what lambda = 0 computes, and lambda = 1 something else."""
    step = Step.draw(SIZES, "cpu")
    plain, off, on = step.sppo(), step.s_sppo(0.0), step.s_sppo(1e4)
    assert error(off[0], plain[0]) < 1e-6
    assert error(off[1], plain[1]) < 1e-6
    assert error(on[0], plain[0]) > 1e-2
