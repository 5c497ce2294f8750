"""The heads on a GPU against log_softmax in double precision, at the width of a real vocabulary, tile by tile.

`tests/megatron/head/test_tile.py` has the compiled kernels alone on a GPU, at sizes that they might get wrong.
"""

from __future__ import annotations

import pytest

pytest.importorskip("megatron.core")

import torch

if not torch.cuda.is_available():
    pytest.skip("no CUDA device", allow_module_level=True)

from collections.abc import Iterator
from unittest import mock

import torch.distributed as dist
from torch import Tensor

from nemo_sspo.megatron.head import tile as softmax_tile
from nemo_sspo.megatron.head import tile_torch
from nemo_sspo.megatron.head.common import logits_tile
from nemo_sspo.megatron.head.normalizer import Normalizer
from nemo_sspo.megatron.head.one_pass import one_pass_logps
from nemo_sspo.megatron.head.recompute import response_logps

SEQUENCE, ROWS, HIDDEN, VOCAB, PADDED_VOCAB = 96, 4, 256, 32_003, 32_128
# Products in bf16 keep 8 bits of a logit, and of a gradient's element relative to the largest.
BOUNDS = {torch.float32: (1e-5, 1e-4), torch.bfloat16: (1e-3, 2e-2)}


@pytest.fixture(params=["triton", "torch"])
def _tile_math(request: pytest.FixtureRequest) -> Iterator[None]:
    """Both of a tile's implementations, under each head."""
    tile_triton = pytest.importorskip("nemo_sspo.megatron.head.tile_triton")
    chosen = tile_triton if request.param == "triton" else tile_torch
    with mock.patch.object(softmax_tile, "math_on", return_value=chosen):
        yield


@pytest.mark.usefixtures("_tile_math")
@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("one_pass", [False, True], ids=["recompute", "one pass"])
@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
def test_values_and_gradients_are_those_of_log_softmax(
    one_gpu: dist.ProcessGroup, dtype: torch.dtype, one_pass: bool, softcap: float | None
) -> None:
    draw = torch.Generator("cuda").manual_seed(0)
    hidden = torch.randn(SEQUENCE, ROWS, HIDDEN, generator=draw, device="cuda").to(dtype).requires_grad_()
    weight = (torch.randn(PADDED_VOCAB, HIDDEN, generator=draw, device="cuda") / HIDDEN**0.5).to(dtype).requires_grad_()
    labels_BS = torch.randint(VOCAB, (ROWS, SEQUENCE), generator=draw, device="cuda")
    index_BS = torch.full((ROWS, SEQUENCE), -1, device="cuda")
    index_BS[:, 20:] = torch.arange(ROWS, device="cuda")[:, None]
    upstream_R = torch.tensor([1.0, -2.0, 0.5, 3.0], device="cuda")

    inputs = hidden, weight, labels_BS, index_BS, ROWS
    layout = {"vocab_size": VOCAB, "chunk_tokens": 100, "tp_group": one_gpu, "softcap": softcap}
    if one_pass:
        got = one_pass_logps(*inputs, **layout, dloss_dlogp=lambda _, indices: upstream_R[indices])
    else:
        got = response_logps(*inputs, **layout)
    got.backward(upstream_R)

    exact_hidden, exact_weight = (x.detach().double().requires_grad_() for x in (hidden, weight))
    logits_SBV = exact_hidden @ exact_weight[:VOCAB].T
    if softcap is not None:
        logits_SBV = softcap * (logits_SBV / softcap).tanh()
    expected = logits_SBV.log_softmax(-1).gather(-1, labels_BS.T[..., None]).squeeze(-1)[20:].sum(dim=0)
    expected.backward(upstream_R.double())

    value_bound, gradient_bound = BOUNDS[dtype]
    torch.testing.assert_close(got.double(), expected, rtol=value_bound, atol=0)
    for ours, theirs in ((hidden.grad, exact_hidden.grad), (weight.grad, exact_weight.grad)):
        assert _largest_difference(ours, theirs) < gradient_bound
    assert weight.grad[VOCAB:].abs().max() == 0


@pytest.mark.parametrize("vocab", [128_256, 151_937])
def test_the_kernels_are_the_torch_path_on_a_model_sized_tile(vocab: int) -> None:
    """Llama 3's vocabulary, and an odd one: in bf16 equal but for the last bit of one element in a hundred."""
    tile_triton = pytest.importorskip("nemo_sspo.megatron.head.tile_triton")
    draw = torch.Generator("cuda").manual_seed(0)
    hidden = torch.randn(512, 64, generator=draw, device="cuda", dtype=torch.bfloat16)
    weight = torch.randn(vocab, 64, generator=draw, device="cuda", dtype=torch.bfloat16)
    labels = torch.randint(vocab, (512,), generator=draw, device="cuda")
    dloss_dlogp = torch.randn(512, generator=draw, device="cuda")
    tiles = logits_tile(hidden, weight), logits_tile(hidden, weight)
    ours, theirs = (
        math.statistics(tile, labels, None) for math, tile in zip((tile_triton, tile_torch), tiles, strict=True)
    )
    for found, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
    for math, tile in zip((tile_triton, tile_torch), tiles, strict=True):
        math.to_gradient_(tile, labels, dloss_dlogp, Normalizer(*theirs[:2]), None)
    torch.testing.assert_close(*tiles, rtol=2**-7, atol=1e-30)
    assert (tiles[0] != tiles[1]).float().mean() < 1e-2


def _largest_difference(found: Tensor, expected: Tensor) -> float:
    """Relative to the largest element."""
    return float((found.double() - expected).abs().max() / expected.abs().max())
