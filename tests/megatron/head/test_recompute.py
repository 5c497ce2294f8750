"""The head against log_softmax over all logits. Layouts of whole models are compared in tests/distributed."""

from __future__ import annotations

import math

import pytest

pytest.importorskip("megatron.core")

import torch
import torch.distributed as dist
from torch import Tensor

from nemo_sspo.megatron.head.recompute import response_logps
from nemo_sspo.megatron.runtime.cpu_runtime import cpu_runtime
from nemo_sspo.megatron.runtime.forked_ranks import run_forked
from tests.megatron.head.problem import ROWS, UPSTREAM, VOCAB, by_log_softmax, problem
from tests.megatron.largest_tensor import LargestTensor

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="gloo groups: for machines without CUDA")


def head(
    hidden: Tensor, weight: Tensor, labels: Tensor, index: Tensor, *, chunk: int = 5, softcap: float | None = None
) -> Tensor:
    return response_logps(
        hidden,
        weight,
        labels,
        index,
        ROWS,
        vocab_size=VOCAB,
        chunk_tokens=chunk,
        tp_group=dist.group.WORLD,
        cp_group=None,
        softcap=softcap,
    )


@pytest.mark.parametrize("softcap", [None, 2.0, 30.0])  # logits are of size 3: cut hard, and hardly
@pytest.mark.parametrize("chunk", [1, 5, 1000])
def test_values_and_gradients_are_those_of_log_softmax(
    one_rank: dist.ProcessGroup, chunk: int, softcap: float | None
) -> None:
    hidden, weight, labels, index = problem()
    got_inputs = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
    expected_inputs = hidden.double().requires_grad_(), weight.double().requires_grad_()
    got = head(*got_inputs, labels, index, chunk=chunk, softcap=softcap)
    expected = by_log_softmax(*expected_inputs, labels, index, softcap)
    torch.testing.assert_close(got.double(), expected, rtol=1e-6, atol=1e-6)
    got.backward(UPSTREAM)
    expected.backward(UPSTREAM.double())
    for ours, truth in zip(got_inputs, expected_inputs, strict=True):
        torch.testing.assert_close(ours.grad.double(), truth.grad, rtol=1e-5, atol=1e-5)


def test_gradient_of_a_capped_logit_by_hand(one_rank: dist.ProcessGroup) -> None:
    """One state h = 1 and two tokens with logits x = (c, 0): log p of the first is log sigmoid(y), y = c tanh 1."""
    cap = 30.0
    hidden, weight = torch.ones(1, 1, 1, requires_grad=True), torch.tensor([[cap], [0.0]], requires_grad=True)
    zero = torch.zeros(1, 1, dtype=torch.int64)
    group = dist.group.WORLD
    logp = response_logps(hidden, weight, zero + 1, zero, 1, vocab_size=2, chunk_tokens=1, tp_group=group, softcap=cap)
    capped = cap * math.tanh(1.0)
    assert logp.item() == pytest.approx(-capped, rel=1e-6)  # log sigmoid(-y), the 1e-10 aside
    logp.sum().backward()
    slope = 1 - math.tanh(1.0) ** 2  # of the cap at x = c; at 0 it is 1
    assert weight.grad.flatten().tolist() == pytest.approx([-slope, 1.0], rel=1e-5)
    assert hidden.grad.item() == pytest.approx(-slope * cap, rel=1e-5)


def test_padding_of_the_vocabulary_gets_no_probability_and_no_gradient(one_rank: dist.ProcessGroup) -> None:
    hidden, weight, labels, index = problem()
    changed = weight.clone()
    changed[VOCAB:] = 1e4
    changed.requires_grad_()
    logps = head(hidden, changed, labels, index)
    assert torch.equal(logps, head(hidden, weight, labels, index))
    logps.sum().backward()
    assert changed.grad[VOCAB:].abs().max() == 0
    assert changed.grad[:VOCAB].abs().max() > 0


def test_only_response_tokens_matter(one_rank: dist.ProcessGroup) -> None:
    hidden, weight, labels, index = problem()
    elsewhere = (index < 0).T[..., None]
    other = torch.where(elsewhere, torch.full_like(hidden, 7.0), hidden).requires_grad_()
    logps = head(other, weight, torch.where(index < 0, 0, labels), index)
    assert torch.equal(logps, head(hidden, weight, labels, index))
    logps.sum().backward()
    assert other.grad.masked_select(elsewhere).abs().max() == 0


def test_never_holds_all_logits(one_rank: dist.ProcessGroup) -> None:
    hidden, weight, labels, index = problem()
    hidden.requires_grad_()
    weight.requires_grad_()
    with LargestTensor() as largest:
        head(hidden, weight, labels, index, chunk=4).sum().backward()
    response_tokens = int((index >= 0).sum())
    assert largest.elements == max(hidden.numel(), weight.numel())
    assert largest.elements < response_tokens * VOCAB


def test_a_rank_without_response_tokens_gives_zeros_with_a_gradient(one_rank: dist.ProcessGroup) -> None:
    """Under context parallelism a rank may hold prompt only; its backward must run all the same."""
    hidden, weight, labels, index = problem()
    hidden.requires_grad_()
    logps = head(hidden, weight.requires_grad_(), labels, torch.full_like(index, -1))
    assert torch.equal(logps, torch.zeros(ROWS))
    logps.sum().backward()
    assert hidden.grad.abs().max() == 0
    assert weight.grad.abs().max() == 0


def test_frozen_weight_gets_no_gradient(one_rank: dist.ProcessGroup) -> None:
    hidden, weight, labels, index = problem()
    hidden.requires_grad_()
    head(hidden, weight, labels, index).sum().backward()
    assert weight.grad is None
    assert hidden.grad.abs().max() > 0


def test_bf16_inputs_are_normalized_in_fp32(one_rank: dist.ProcessGroup) -> None:
    hidden, weight, labels, index = problem(torch.bfloat16)
    got = head(hidden, weight, labels, index)
    assert got.dtype == torch.float32
    # A logit is rounded to 8 bits, and the errors of a response's tokens add up.
    largest_logit = (hidden.float() @ weight[:VOCAB].float().T).abs().max()
    tokens = int((index == 0).sum())
    bound = tokens * float(largest_logit) * 2**-8
    assert (got - by_log_softmax(hidden, weight, labels, index)).abs().max() < bound


def test_differing_precisions_are_refused(one_rank: dist.ProcessGroup) -> None:
    hidden, weight, labels, index = problem()
    with pytest.raises(ValueError, match="bfloat16"):
        head(hidden, weight.bfloat16(), labels, index)


@pytest.mark.parametrize("softcap", [None, 2.0])
def test_a_rank_that_holds_padding_only(softcap: float | None) -> None:
    """48 rows over 8 ranks with 37 tokens: two ranks have no token, one has both."""
    hidden, weight, labels, index = problem()

    def rank() -> tuple[Tensor, Tensor, Tensor]:
        with cpu_runtime():
            dist.init_process_group("gloo")
            shard = weight.chunk(8)[dist.get_rank()].clone().requires_grad_()
            own = hidden.clone().requires_grad_()
            logps = head(own, shard, labels, index, softcap=softcap)
            logps.backward(UPSTREAM)
            return logps.detach(), own.grad, shard.grad

    results = run_forked(rank, 8, timeout=60)
    expected_inputs = hidden.double().requires_grad_(), weight.double().requires_grad_()
    expected = by_log_softmax(*expected_inputs, labels, index, softcap)
    expected.backward(UPSTREAM.double())
    for logps, grad_hidden, _ in results:
        torch.testing.assert_close(logps.double(), expected.detach(), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(grad_hidden.double(), expected_inputs[0].grad, rtol=1e-5, atol=1e-5)
    grad_weight = torch.cat([shard for _, _, shard in results])
    torch.testing.assert_close(grad_weight.double(), expected_inputs[1].grad, rtol=1e-5, atol=1e-5)
