"""Compiled flex-attention against attention in plain torch, and in the tiny model against the truth."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("megatron.core")

import torch

if not torch.cuda.is_available():
    pytest.skip("no CUDA device", allow_module_level=True)

import torch.distributed as dist
from megatron.core.transformer.enums import AttnMaskType
from torch import Tensor

from nemo_sspo.megatron.layers.attention_mask import PackedRow
from nemo_sspo.megatron.layers.core_attention import CoreAttention, LocalCoreAttention
from nemo_sspo.megatron.layers.flex_attention import FlexCoreAttention
from tests.distributed import world
from tests.distributed.architectures import GEMMA2, LLAMA, Architecture
from tests.distributed.truth import truth
from tests.gpu.step import GRADIENT_BOUND, LOSS_BOUND, bf16_weights, build, distance, measure
from tests.megatron.layers.one_layer import config
from tests.megatron.layers.rows import shared_row

HEADS, GROUPS, SIZE = 8, 2, 64
# bf16 keeps 8 bits; the plain attention rounds its weights to it before it multiplies them, the kernel does so block by
# block. Relative to the largest element.
BOUND = 2e-2


def row(parts: list[int], rest: int) -> PackedRow:
    made = shared_row(parts, rest)
    made.cu_seqlens_q, made.part_bounds = made.cu_seqlens_q.cuda(), made.part_bounds.cuda()
    return made


def core(kind: type[CoreAttention], cap: float | None, **changes: Any) -> CoreAttention:
    module_config = config(num_attention_heads=HEADS, num_query_groups=GROUPS, hidden_size=HEADS * SIZE, **changes)
    module_config.attn_logit_softcapping = cap
    return kind(module_config, layer_number=1, attn_mask_type=AttnMaskType.causal, attention_type="self")


@pytest.mark.parametrize("cap", [None, 2.0])
@pytest.mark.parametrize("window", [None, (70, 0)])
@pytest.mark.parametrize(("parts", "rest"), [([100, 61, 90], 49), ([500, 300, 400, 9, 200, 77], 0)])
def test_values_and_gradients_are_those_of_plain_attention(
    one_gpu: dist.ProcessGroup, parts: list[int], rest: int, window: tuple[int, int] | None, cap: float | None
) -> None:
    found, plain = (
        _values_and_gradients(core(kind, cap, window_size=window), parts, rest)
        for kind in (FlexCoreAttention, LocalCoreAttention)
    )
    for ours, theirs in zip(found, plain, strict=True):
        assert (ours - theirs).abs().max() < BOUND * theirs.abs().max()


def _values_and_gradients(attention: CoreAttention, parts: list[int], rest: int) -> list[Tensor]:
    draw = torch.Generator("cuda").manual_seed(0)
    shapes = [(sum(parts) + rest, heads, SIZE) for heads in (HEADS, GROUPS, GROUPS)]
    inputs = [torch.randn(s, generator=draw, device="cuda").bfloat16().requires_grad_() for s in shapes]
    output = attention(*inputs, packed_seq_params=row(parts, rest))
    upstream = torch.randn(output.shape, generator=draw, device="cuda").bfloat16()
    return [x.float() for x in (output.detach(), *torch.autograd.grad(output, inputs, upstream))]


def test_it_holds_no_scores_and_no_mask_of_the_row(one_gpu: dist.ProcessGroup) -> None:
    length = 16_384
    attention = core(FlexCoreAttention, 2.0)
    inputs = [torch.randn(length, h, SIZE, device="cuda").bfloat16().requires_grad_() for h in (HEADS, GROUPS, GROUPS)]
    described = row([4000, 3000, 5000], length - 12_000)
    attention(*inputs, packed_seq_params=described).sum().backward()  # compiles
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    attention(*inputs, packed_seq_params=described).sum().backward()
    assert torch.cuda.max_memory_allocated() - before < length * length


@pytest.mark.parametrize("architecture", [LLAMA, GEMMA2], ids=lambda architecture: architecture.name)
def test_shared_prompts_loss_and_gradients_are_the_truths(
    one_gpu: dist.ProcessGroup, architecture: Architecture
) -> None:
    """In the layers that training would take here."""
    model = build(tied=True, architecture=architecture, shares_prompts=True)
    found = measure(model, world.pairs(), micro_batch_size=4, shared=True)
    weights = bf16_weights(tied=True, architecture=architecture)
    expected = truth(weights, world.pairs(), architecture=architecture, dtype=torch.float64)
    loss, gradient = distance(found, expected.loss, expected.grads)
    assert loss < LOSS_BOUND
    assert gradient < GRADIENT_BOUND
