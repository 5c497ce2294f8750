"""A mixture of experts in every kind of layout against one plain process, which routes token by token."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest

pytest.importorskip("megatron.core")

import megatron.core
import torch
from megatron.core.transformer.moe.router import TopKRouter

from tests.distributed import world
from tests.distributed.architectures import MIXTURE
from tests.distributed.compare import GRADIENT_TOLERANCE, deviation, rounding_of_truth, truth_of
from tests.distributed.ranks import Case, Result, run_cases
from tests.distributed.world import BY_NAME, MIXTURE_LAYOUTS, Layout

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="Megatron over gloo runs only where CUDA is absent")

CASES = [
    # Padding is routed too, to experts that real tokens take: it must not show.
    Case("padded", architecture=MIXTURE),
    Case("padded, uneven", architecture=MIXTURE, micro_batch_size=2, pairs=world.pairs()[:7]),
    Case("packed, one pass", architecture=MIXTURE, packed=True, micro_batch_size=2, one_pass=True),
    Case("shared prompts", architecture=MIXTURE, packed=True, shared=True, micro_batch_size=2, pooling="mean"),
]


def softmax_over_all_experts() -> AbstractContextManager:
    """A token's weights are those that Qwen3 gives without `norm_topk_prob`."""
    right = TopKRouter.routing

    def wrong(router: TopKRouter, *args: Any, **kwargs: Any) -> Any:
        with mock.patch.object(router.config, "moe_router_pre_softmax", True):
            return right(router, *args, **kwargs)

    return mock.patch.object(TopKRouter, "routing", wrong)


def router_without_gradient() -> AbstractContextManager:
    right = TopKRouter.routing

    def wrong(router: TopKRouter, *args: Any, **kwargs: Any) -> Any:
        probs, routing_map = right(router, *args, **kwargs)
        return probs.detach().requires_grad_(), routing_map

    return mock.patch.object(TopKRouter, "routing", wrong)


@pytest.fixture(scope="session", params=[world.ONE_RANK, *MIXTURE_LAYOUTS], ids=lambda layout: layout.name)
def results(request: pytest.FixtureRequest) -> dict[str, Result]:
    layout: Layout = request.param
    return run_cases(layout, CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_loss_and_every_gradient_match_one_process(results: dict[str, Result], case: Case) -> None:
    found = deviation(results[case.name], truth_of(case))
    assert found.is_within_tolerance, str(found)


class _WholeExpertsEverywhere(Layout):
    """Every tensor-parallel rank holds all experts, whole, and computes its part of the tokens."""

    expert_tensor = 1


@pytest.mark.skipif(megatron.core.__version__ >= "0.19", reason="sums them")
def test_experts_that_are_neither_cut_nor_distributed_would_be_wrong() -> None:
    """Why `Parallel.expert_tensor` is what it is: before 0.19 Megatron sums their gradients over no tensor ranks."""
    layout = _WholeExpertsEverywhere("TP2 SP, whole experts", tensor=2, sequence=True)
    with pytest.raises(AssertionError, match=r"local_experts\.0\.linear_fc1\.weight: replicas differ"):
        run_cases(layout, CASES[:1])


@pytest.mark.parametrize("fault", [softmax_over_all_experts, router_without_gradient], ids=lambda fault: fault.__name__)
def test_planted_fault_is_caught(fault: Callable[[], AbstractContextManager]) -> None:
    case = replace(CASES[0], fault=fault)
    found = deviation(run_cases(BY_NAME["DP2 EP2"], [case])[case.name], truth_of(case))
    assert found.gradient > 100 * GRADIENT_TOLERANCE


def test_every_expert_is_taken_and_none_by_all() -> None:
    """Otherwise a fault in an expert, or in the choice, would not show."""
    grads = truth_of(CASES[0]).grads
    experts = [name for name in grads if "local_experts" in name]
    assert len(experts) == 2 * world.LAYERS * 4
    assert all(grads[name].abs().max() > 0 for name in experts)


def test_tolerances_are_above_rounding() -> None:
    assert rounding_of_truth(MIXTURE).is_within_tolerance
