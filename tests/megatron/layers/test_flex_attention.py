"""Flex-attention against attention in plain torch, values and gradients, inside one forked rank."""

from __future__ import annotations

from functools import partial
from typing import Any
from unittest import mock

import pytest

pytest.importorskip("megatron.core")

import torch
from megatron.core.packed_seq_params import PackedSeqParams
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter
from torch.nn.attention.flex_attention import flex_attention

from nemo_sspo.errors import UserError
from nemo_sspo.megatron.layers import flex_attention as module
from nemo_sspo.megatron.layers.attention_mask import PackedRow
from nemo_sspo.megatron.layers.core_attention import CoreAttention, LocalCoreAttention
from nemo_sspo.megatron.layers.flex_attention import FlexCoreAttention
from tests.megatron.flex_on_cpu import flex_on_cpu
from tests.megatron.layers.one_layer import GROUPS, HEADS, SIZE, attention, config, in_one_rank
from tests.megatron.layers.rows import shared_row

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="gloo groups: for machines without CUDA")

LENGTH = 300  # three blocks of flex-attention, the last one cut
PACKED = PackedRow(qkv_format="thd", cu_seqlens_q=torch.tensor([0, 130, 131, LENGTH], dtype=torch.int32))
ROWS = {"padded": None, "packed": PACKED, "shared": shared_row([100, 61, 90], rest=49)}


def capped(kind: type[CoreAttention], cap: float | None, **changes: Any) -> nn.Module:
    module_config = config(**changes)
    module_config.attn_logit_softcapping = cap
    with mock.patch("tests.megatron.layers.test_spec.config", return_value=module_config):
        return attention(kind)


def tensors(length: int = LENGTH, rows: int | None = None) -> list[Tensor]:
    draw = torch.Generator().manual_seed(3)
    batch = () if rows is None else (rows,)
    return [torch.randn(length, *batch, heads, SIZE, generator=draw) for heads in (HEADS, GROUPS, GROUPS)]


@pytest.mark.parametrize("row", ROWS)
def test_values_and_gradients_are_those_of_plain_attention(row: str) -> None:
    def differences() -> dict[str, list[float]]:
        found = {}
        for name, options in {
            "": {"cap": None},
            "windowed": {"cap": None, "window_size": (40, 0)},
            "capped, windowed": {"cap": 1.5, "window_size": (40, 0), "softmax_scale": 0.4},
        }.items():
            both = [
                _values_and_gradients(capped(kind, **options), row) for kind in (FlexCoreAttention, LocalCoreAttention)
            ]
            found[name] = [
                float((ours - plain).abs().max() / plain.abs().max()) for ours, plain in zip(*both, strict=True)
            ]
        return found

    for name, found in in_one_rank(differences).items():
        assert max(found) < 2e-6, (name, found)


def _values_and_gradients(core: nn.Module, row: str) -> list[Tensor]:
    inputs = [x.requires_grad_() for x in tensors(rows=2 if row == "padded" else None)]
    with flex_on_cpu():
        output = core(*inputs, packed_seq_params=ROWS[row])
        upstream = torch.randn(output.shape, generator=torch.Generator().manual_seed(4))
        return [output.detach(), *torch.autograd.grad(output, inputs, upstream)]


def test_small_heads_are_as_wide_as_the_kernels_want() -> None:
    """The GPU's refuse fewer than 16 channels, which is more than tiny models have."""

    def widths() -> tuple[list[int], int]:
        with flex_on_cpu(), mock.patch.object(module, "flex_attention", wraps=module.flex_attention) as called:
            output = capped(FlexCoreAttention, None)(*tensors(rows=2))
        return [x.shape[-1] for x in called.call_args.args], output.shape[-1]

    assert in_one_rank(widths) == ([16, 16, 16], HEADS * SIZE)
    assert SIZE < 16


def test_rows_of_all_lengths_and_masks_share_few_kernels() -> None:
    """On a GPU each of these compilations takes seconds."""
    made = [
        ([100, 61, 90], 49),  # 300 tokens
        ([7, 200, 90], 20),  # 317
        ([100, 61, 90, 10, 20, 30], 73),  # 384
        ([300, 61, 120], 0),  # 481, in the next length
        ([9, 9, 9], 273),  # 300 once more
    ]

    def compiled() -> int:
        counter = CompileCounter()
        with (
            flex_on_cpu(),
            mock.patch.object(
                module, "flex_attention", torch.compile(flex_attention, backend=counter, dynamic=False, fullgraph=True)
            ),
        ):
            for parts, rest in made:
                row = shared_row(parts, rest)
                for window in (None, (40, 0), (50, 0)):
                    core = capped(FlexCoreAttention, 1.5, window_size=window)
                    core(*(x.requires_grad_() for x in tensors(sum(parts) + rest)), packed_seq_params=row)
        return counter.frame_count

    assert in_one_rank(compiled) == 2


def test_what_it_cannot_do_is_refused() -> None:
    def message(build: Any) -> str:
        try:
            build()
        except (UserError, TypeError) as error:
            return str(error)
        return "nothing was raised"

    dropout = partial(attention, FlexCoreAttention, attention_dropout=0.1)
    assert "attention_dropout=0.1 must be 0" in in_one_rank(partial(message, dropout))
    plain_row = lambda: attention(FlexCoreAttention)(*tensors(), packed_seq_params=PackedSeqParams())  # noqa: E731
    assert "PackedRow" in in_one_rank(partial(message, plain_row))
