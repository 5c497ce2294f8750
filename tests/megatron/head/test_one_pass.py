"""The one-pass head against log_softmax over all logits. Layouts of whole models are compared in tests/distributed."""

from __future__ import annotations

from itertools import pairwise
from typing import Any
from unittest import mock

import pytest

pytest.importorskip("megatron.core")

import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from nemo_sspo.megatron.head import common as head_parts
from nemo_sspo.megatron.head import one_pass as one_pass_head
from nemo_sspo.megatron.head.one_pass import one_pass_logps
from nemo_sspo.megatron.head.recompute import response_logps
from nemo_sspo.megatron.runtime.cpu_runtime import cpu_runtime
from nemo_sspo.megatron.runtime.forked_ranks import run_forked
from tests.megatron.head.problem import HIDDEN, PADDED_VOCAB, ROWS, UPSTREAM, VOCAB, by_log_softmax, problem
from tests.megatron.largest_tensor import LargestTensor

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="gloo groups: for machines without CUDA")

LENGTHS = [9, 7, 5, 3]
"""Response tokens of each row of the problem."""


def fixed_gradient(logps: Tensor, indices: Tensor) -> Tensor:
    """Those of a linear loss, UPSTREAM . logps."""
    return UPSTREAM[indices]


def regression_gradient(logps: Tensor, indices: Tensor) -> Tensor:
    """Those of 1/2 (logp - target)^2, which ask for the sum."""
    return logps - 10.0 * UPSTREAM[indices]


def head(hidden: Tensor, weight: Tensor, labels: Tensor, index: Tensor, *, chunk: int = 5, **options: Any) -> Tensor:
    options = {"dloss_dlogp": fixed_gradient, "tp_group": dist.group.WORLD, "vocab_size": VOCAB} | options
    return one_pass_logps(hidden, weight, labels, index, ROWS, chunk_tokens=chunk, **options)


def truth(
    hidden: Tensor, weight: Tensor, labels: Tensor, index: Tensor, softcap: float | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probs, and the gradients of the regression for hidden states and weight, in double precision."""
    inputs = hidden.double().requires_grad_(), weight.double().requires_grad_()
    logps = by_log_softmax(*inputs, labels, index, softcap)
    (0.5 * (logps - 10.0 * UPSTREAM).square()).sum().backward()
    return logps.detach(), inputs[0].grad, inputs[1].grad


def distance(found: Tensor, expected: Tensor) -> float:
    """Largest difference, relative to the largest element: single gradients are small by cancellation."""
    return float((found.double() - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("softcap", [None, 2.0])  # logits are of size 3: cut hard
@pytest.mark.parametrize("chunk", [1, 5, 8, 17, 1000])
def test_values_and_gradients_are_those_of_log_softmax(
    one_rank: dist.ProcessGroup, chunk: int, softcap: float | None
) -> None:
    """A tile of one token, part of a response, exactly one, two together, everything."""
    hidden, weight, labels, index = problem()
    logps, grad_hidden, grad_weight = truth(hidden, weight, labels, index, softcap)
    hidden.requires_grad_()
    weight.requires_grad_()
    got = head(hidden, weight, labels, index, chunk=chunk, softcap=softcap, dloss_dlogp=regression_gradient)
    torch.testing.assert_close(got.double(), logps, rtol=1e-6, atol=1e-6)
    scale = 3.0  # what a schedule may multiply the loss by
    (scale * 0.5 * (got - 10.0 * UPSTREAM).square()).sum().backward()
    assert distance(hidden.grad, scale * grad_hidden) < 2e-6
    assert distance(weight.grad, scale * grad_weight) < 2e-6
    assert weight.grad[VOCAB:].abs().max() == 0


def test_responses_may_lie_in_any_order(one_rank: dist.ProcessGroup) -> None:
    hidden, weight, labels, index = problem()
    order = torch.tensor([2, 0, 3, 1])
    shuffled = head(hidden[:, order], weight, labels[order], index[order], chunk=17)
    torch.testing.assert_close(shuffled, head(hidden, weight, labels, index, chunk=17), rtol=1e-6, atol=0)


def gemm_flops(run: Any) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


@pytest.mark.parametrize(("chunk", "twice"), [(1000, 0), (17, 0), (9, 0), (8, 8), (5, 10), (1, 20)])
def test_three_products_over_response_tokens_and_none_over_others(
    one_rank: dist.ProcessGroup, chunk: int, twice: int
) -> None:
    """`twice`: tokens of responses longer than the tile, without their last chunk. The other head: all of them."""
    hidden, weight, labels, index = problem()
    hidden.requires_grad_()
    weight.requires_grad_()
    product = 2 * VOCAB * HIDDEN
    ours = gemm_flops(lambda: head(hidden, weight, labels, index, chunk=chunk).backward(UPSTREAM))
    assert ours == 3 * product * sum(LENGTHS) + product * twice
    assert gemm_flops(lambda: head(hidden, weight, labels, index, chunk=chunk, dloss_dlogp=None)) == product * sum(
        LENGTHS
    )
    options = {"vocab_size": VOCAB, "chunk_tokens": chunk, "tp_group": one_rank}
    recomputing = gemm_flops(lambda: response_logps(hidden, weight, labels, index, ROWS, **options).backward(UPSTREAM))
    assert recomputing == 4 * product * sum(LENGTHS)


def test_never_holds_the_logits_of_more_than_a_tile(one_rank: dist.ProcessGroup) -> None:
    hidden, weight, labels, index = problem()
    hidden.requires_grad_()
    weight.requires_grad_()
    with LargestTensor() as largest:
        head(hidden, weight, labels, index, chunk=4).backward(UPSTREAM)
    assert largest.elements == max(hidden.numel(), weight.numel())
    assert largest.elements < sum(LENGTHS) * VOCAB


def test_frozen_weight_costs_two_products_and_gets_no_gradient(one_rank: dist.ProcessGroup) -> None:
    hidden, weight, labels, index = problem()
    hidden.requires_grad_()
    flops = gemm_flops(lambda: head(hidden, weight, labels, index, chunk=9).backward(UPSTREAM))
    assert flops == 2 * 2 * VOCAB * HIDDEN * sum(LENGTHS)
    assert weight.grad is None
    assert hidden.grad.abs().max() > 0


def with_main_grad(weight: Tensor, *, tied: bool) -> torch.nn.Parameter:
    """As Megatron's data parallelism leaves a parameter, and its tied embedding."""
    parameter = torch.nn.Parameter(weight.clone())
    parameter.main_grad = torch.full(weight.shape, 0.5)
    parameter.grad_added_to_main_grad = False
    if tied:
        parameter.zero_out_wgrad = True
    return parameter


@pytest.mark.parametrize("tied", [False, True])
def test_main_grad_gets_the_weights_gradient_in_fp32(one_rank: dist.ProcessGroup, tied: bool) -> None:
    """From bf16 weights. Rounded to bf16 on its way, it would miss by 2^-9 of an element, as the recomputing head's."""
    hidden, weight, labels, index = problem(torch.bfloat16)
    parameter = with_main_grad(weight, tied=tied)
    head(hidden, parameter, labels, index, chunk=1).backward(2 * UPSTREAM)
    plain = torch.nn.Parameter(weight.clone())
    head(hidden, plain, labels, index, chunk=1).backward(2 * UPSTREAM)
    added = parameter.main_grad - 0.5
    assert parameter.grad_added_to_main_grad
    torch.testing.assert_close(added.bfloat16(), plain.grad, rtol=2**-7, atol=1e-6)
    assert not torch.equal(added.bfloat16().float(), added)
    if tied:  # the embedding's gradient is added to it
        assert parameter.grad.abs().max() == 0


def test_a_rows_block_of_the_weights_gradient_is_as_good_as_all_rows(one_rank: dist.ProcessGroup) -> None:
    grads = []
    for rows in (10_000, 10):
        hidden, weight, labels, index = problem()
        weight.requires_grad_()
        with mock.patch.object(head_parts, "ROWS_AT_ONCE", rows):
            head(hidden, weight, labels, index).backward(UPSTREAM)
        grads.append(weight.grad)
    torch.testing.assert_close(*grads, rtol=1e-6, atol=1e-6)


def test_a_loss_that_couples_responses_is_refused_in_backward(one_rank: dist.ProcessGroup) -> None:
    hidden, weight, labels, index = problem()
    logps = head(hidden.requires_grad_(), weight, labels, index)
    with pytest.raises(RuntimeError, match=r"train\.head=recompute"):
        logps.backward(UPSTREAM * torch.tensor([1.0, 1.0, 1.0, 1.01]))


def test_a_second_backward_is_refused(one_rank: dist.ProcessGroup) -> None:
    hidden, weight, labels, index = problem()
    logps = head(hidden.requires_grad_(), weight, labels, index)
    logps.backward(UPSTREAM, retain_graph=True)
    with pytest.raises(RuntimeError, match="used up"):
        logps.backward(UPSTREAM)


def test_what_is_not_a_number_reaches_the_gradients(one_rank: dist.ProcessGroup) -> None:
    """Where the training step looks for it."""
    hidden, weight, labels, index = problem()
    logps = head(hidden.requires_grad_(), weight, labels, index)
    logps.backward(UPSTREAM * torch.nan)
    assert hidden.grad.isnan().any()


def test_zero_slopes_give_zero_gradients(one_rank: dist.ProcessGroup) -> None:
    """Of a microbatch that is filler only."""
    hidden, weight, labels, index = problem()
    logps = head(hidden.requires_grad_(), weight, labels, index, dloss_dlogp=lambda logps, _: torch.zeros_like(logps))
    logps.backward(torch.zeros(ROWS))
    assert hidden.grad.abs().max() == 0


def test_without_slopes_there_is_no_gradient(one_rank: dist.ProcessGroup) -> None:
    hidden, weight, labels, index = problem()
    assert not head(hidden.requires_grad_(), weight, labels, index, dloss_dlogp=None).requires_grad


def test_a_rank_without_response_tokens_gives_zeros(one_rank: dist.ProcessGroup) -> None:
    hidden, weight, labels, index = problem()
    logps = head(hidden.requires_grad_(), weight.requires_grad_(), labels, torch.full_like(index, -1))
    assert torch.equal(logps, torch.zeros(ROWS))
    logps.backward(UPSTREAM)
    assert hidden.grad.abs().max() == 0
    assert weight.grad.abs().max() == 0


def test_differing_precisions_are_refused(one_rank: dist.ProcessGroup) -> None:
    hidden, weight, labels, index = problem()
    with pytest.raises(ValueError, match="bfloat16"):
        head(hidden, weight.bfloat16(), labels, index)


def test_a_tensor_parallel_rank_that_holds_padding_only() -> None:
    """48 rows over 8 ranks with 37 tokens: two ranks have no token, one has both."""
    hidden, weight, labels, index = problem()
    assert PADDED_VOCAB == 48

    def rank() -> tuple[Tensor, Tensor, Tensor]:
        with cpu_runtime():
            dist.init_process_group("gloo")
            shard = weight.chunk(8)[dist.get_rank()].clone().requires_grad_()
            own = hidden.clone().requires_grad_()
            logps = head(own, shard, labels, index, dloss_dlogp=regression_gradient)
            (0.5 * (logps - 10.0 * UPSTREAM).square()).sum().backward()
            return logps.detach(), own.grad, shard.grad

    results = run_forked(rank, 8, timeout=60)
    expected_logps, grad_hidden, grad_weight = truth(hidden, weight, labels, index)
    for logps, own_grad, _ in results:
        torch.testing.assert_close(logps.double(), expected_logps, rtol=1e-6, atol=1e-6)
        assert distance(own_grad, grad_hidden) < 2e-6
    assert distance(torch.cat([shard for _, _, shard in results]), grad_weight) < 2e-6


@given(counts=st.lists(st.integers(0, 12), min_size=1, max_size=12), budget=st.integers(1, 12))
def test_groups_are_consecutive_whole_and_fit(counts: list[int], budget: int) -> None:
    groups = one_pass_head.tile_groups(counts, budget)
    assert [response for group in groups for response in group] == list(range(len(counts)))
    for group in groups:
        assert len(group) == 1 or sum(counts[response] for response in group) <= budget
    for group, following in pairwise(groups):  # none is closed early
        assert sum(counts[response] for response in group) + counts[following.start] > budget
