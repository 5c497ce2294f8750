"""Flex-attention in the parity tests' models, which cap, window and share prompts, against one plain process.

torch runs it uncompiled here, at tens of milliseconds a layer: few layouts, and a few microbatches of many pairs.
"""

from __future__ import annotations

import pytest

pytest.importorskip("megatron.core")

import torch
import torch._dynamo  # once, before the ranks are forked

from nemo_sspo.megatron.layers.flex_attention import FlexCoreAttention
from tests.distributed.architectures import GEMMA2
from tests.distributed.compare import deviation, truth_of
from tests.distributed.ranks import Case, Result, run_cases
from tests.distributed.world import BY_NAME
from tests.megatron.flex_on_cpu import flex_on_cpu

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="Megatron over gloo runs only where CUDA is absent")

_FLEX = {"attention": FlexCoreAttention, "fault": flex_on_cpu, "micro_batch_size": 8}
CASES = [
    Case("shared prompts", packed=True, shared=True, pooling="mean", **_FLEX),
    Case("gemma 2, shared prompts", architecture=GEMMA2, tied=True, packed=True, shared=True, **_FLEX),
    Case("gemma 2, packed", architecture=GEMMA2, tied=True, packed=True, **_FLEX),
    Case("gemma 2, padded", architecture=GEMMA2, tied=True, **_FLEX),
]


@pytest.fixture(scope="module", params=["TP2 PP2 SP", "CP2, selective recomputation"], ids=str)
def results(request: pytest.FixtureRequest) -> dict[str, Result]:
    return run_cases(BY_NAME[request.param], CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_loss_and_every_gradient_match_one_process(results: dict[str, Result], case: Case) -> None:
    """The truth computes every response in a row of its own."""
    found = deviation(results[case.name], truth_of(case))
    assert found.is_within_tolerance, str(found)
