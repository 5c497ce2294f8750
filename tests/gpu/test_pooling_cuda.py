"""Pooled states on a GPU: the same bits at every call, on which ranks that compute one loss rely."""

from __future__ import annotations

import pytest

pytest.importorskip("megatron.core")

import torch

if not torch.cuda.is_available():
    pytest.skip("no CUDA device", allow_module_level=True)

import torch.distributed as dist

from nemo_sspo.megatron.loss.pooling import pool_responses


def test_every_call_gives_the_same_bits(one_gpu: dist.ProcessGroup) -> None:
    draw = torch.Generator("cuda").manual_seed(0)
    hidden = torch.randn(2048, 4, 512, generator=draw, device="cuda", dtype=torch.bfloat16).requires_grad_()
    index = torch.arange(4, device="cuda")[:, None].repeat(1, 2048)
    results = []
    for _ in range(5):
        pooled = pool_responses(hidden, index, 4, tp_group=one_gpu)
        (gradient,) = torch.autograd.grad(pooled.square().sum(), hidden)
        results.append((pooled.detach(), gradient))
    first, *others = results
    torch.testing.assert_close(first[0], hidden.detach().float().mean(0), rtol=1e-5, atol=1e-6)
    assert all(torch.equal(a, b) for other in others for a, b in zip(first, other, strict=True))
