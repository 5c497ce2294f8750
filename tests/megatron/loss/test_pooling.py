from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("megatron.core")

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from nemo_sspo.megatron.loss.pooling import pool_responses
from nemo_sspo.megatron.runtime.cpu_runtime import cpu_runtime
from nemo_sspo.megatron.runtime.forked_ranks import run_forked

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="gloo groups: for machines without CUDA")

INDEX = torch.tensor([[-1, 0, 0, 0, -1, -1, -1, -1], [-1, -1, 1, 1, 1, 1, 1, -1]])  # [B, S]
HIDDEN = torch.randn(8, 2, 4, generator=torch.Generator().manual_seed(1))  # [S, B, H]


def test_mean_over_the_marked_tokens(one_rank: dist.ProcessGroup) -> None:
    hidden = HIDDEN.clone().requires_grad_()
    pooled = pool_responses(hidden, INDEX, 2, tp_group=one_rank)
    torch.testing.assert_close(pooled, torch.stack([HIDDEN[1:4, 0].mean(0), HIDDEN[2:7, 1].mean(0)]))
    pooled.sum().backward()
    share = torch.zeros(8, 2)
    share[1:4, 0], share[2:7, 1] = 1 / 3, 1 / 5
    torch.testing.assert_close(hidden.grad, share[..., None].expand(-1, -1, 4))


def test_one_marked_token_is_returned_as_it_is(one_rank: dist.ProcessGroup) -> None:
    last = torch.full_like(INDEX, -1)
    last[0, 3], last[1, 6] = 0, 1
    pooled = pool_responses(HIDDEN.bfloat16(), last, 2, tp_group=one_rank)
    assert pooled.dtype == torch.float32
    assert torch.equal(pooled, torch.stack([HIDDEN[3, 0], HIDDEN[6, 1]]).bfloat16().float())


def test_a_response_without_tokens_fails(one_rank: dist.ProcessGroup) -> None:
    with pytest.raises(RuntimeError, match="no token to pool"):
        pool_responses(HIDDEN, INDEX, 3, tp_group=one_rank)


class _AddsToNothingTwice(TorchDispatchMode):
    """Fails where a GPU would add to one place in an order that changes from call to call."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        assert not name.startswith(("scatter", "index_put", "_index_put")), name
        if name.startswith("index_add"):
            assert len(args[2].unique()) == len(args[2]), name
        return func(*args, **kwargs or {})


def test_a_response_is_summed_in_one_order_wherever_it_stands(one_rank: dist.ProcessGroup) -> None:
    """Padded rows, whose tokens are interleaved, and one packed row give the same bits, forward and backward."""
    draw = torch.Generator().manual_seed(2)
    rows = torch.randn(3, 200, 8, generator=draw)
    index = torch.arange(3)[:, None].repeat(1, 200)
    index[:, :7] = -1
    found = []
    for hidden_BSH, index_BS in ((rows, index), (rows.reshape(1, 600, 8), index.reshape(1, 600))):
        hidden = hidden_BSH.transpose(0, 1).clone().requires_grad_()
        with _AddsToNothingTwice():
            pooled = pool_responses(hidden, index_BS, 3, tp_group=one_rank)
            (gradient,) = torch.autograd.grad(pooled.square().sum(), hidden)
        found.append((pooled, gradient.transpose(0, 1).reshape(600, 8)))
    torch.testing.assert_close(found[0][0], rows[:, 7:].mean(1))
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize("context", [1, 2])
def test_ranks_that_share_a_sequence_each_get_their_tokens_gradient_once(context: int) -> None:
    """Four ranks, sequence parallel over 4 / context and context parallel over the rest (contiguous parts here)."""

    def rank() -> tuple[Tensor, Tensor]:
        with cpu_runtime():
            dist.init_process_group("gloo")
            tp_groups = [
                dist.new_group(list(range(start, start + 4 // context))) for start in range(0, 4, 4 // context)
            ]
            cp_groups = [dist.new_group(list(range(start, 4, 4 // context))) for start in range(4 // context)]
            me = dist.get_rank()
            cp_rank = me // (4 // context)
            own = HIDDEN.chunk(4)[me].clone().requires_grad_()
            pooled = pool_responses(
                own,
                INDEX.chunk(context, dim=1)[cp_rank],
                2,
                tp_group=tp_groups[cp_rank],
                cp_group=cp_groups[me % (4 // context)],
                sequence_parallel=context < 4,
            )
            pooled.square().sum().backward()  # every rank computes the same loss, as in training
            return pooled.detach(), own.grad

    results = run_forked(rank, 4, timeout=60)
    whole = HIDDEN.clone().requires_grad_()
    expected = torch.stack([whole[1:4, 0].mean(0), whole[2:7, 1].mean(0)])
    expected.square().sum().backward()
    for pooled, _ in results:
        torch.testing.assert_close(pooled, expected.detach())
    torch.testing.assert_close(torch.cat([grad for _, grad in results]), whole.grad)
