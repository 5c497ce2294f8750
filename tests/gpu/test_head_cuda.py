"""The head on a GPU against log_softmax in double precision, at the width of a real vocabulary."""

from __future__ import annotations

from functools import partial

import pytest

pytest.importorskip("megatron.core")

import torch

if not torch.cuda.is_available():
    pytest.skip("no CUDA device", allow_module_level=True)

import torch.distributed as dist
from torch import Tensor

from nemo_sspo.megatron.head import response_logps
from nemo_sspo.megatron.one_pass_head import one_pass_logps

SEQUENCE, ROWS, HIDDEN, VOCAB, PADDED_VOCAB = 96, 4, 256, 32_003, 32_128
# Products in bf16 keep 8 bits of a logit, and of a gradient's element relative to the largest.
BOUNDS = {torch.float32: (1e-5, 1e-4), torch.bfloat16: (1e-3, 2e-2)}


@pytest.mark.parametrize("one_pass", [False, True], ids=["recompute", "one pass"])
@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
def test_values_and_gradients_are_those_of_log_softmax(
    one_gpu: dist.ProcessGroup, dtype: torch.dtype, one_pass: bool
) -> None:
    draw = torch.Generator("cuda").manual_seed(0)
    hidden = torch.randn(SEQUENCE, ROWS, HIDDEN, generator=draw, device="cuda").to(dtype).requires_grad_()
    weight = (torch.randn(PADDED_VOCAB, HIDDEN, generator=draw, device="cuda") / HIDDEN**0.5).to(dtype).requires_grad_()
    labels_BS = torch.randint(VOCAB, (ROWS, SEQUENCE), generator=draw, device="cuda")
    index_BS = torch.full((ROWS, SEQUENCE), -1, device="cuda")
    index_BS[:, 20:] = torch.arange(ROWS, device="cuda")[:, None]
    upstream_R = torch.tensor([1.0, -2.0, 0.5, 3.0], device="cuda")

    head = partial(one_pass_logps, slopes=lambda _, numbers: upstream_R[numbers]) if one_pass else response_logps
    got = head(hidden, weight, labels_BS, index_BS, ROWS, vocab_size=VOCAB, chunk_tokens=100, tp_group=one_gpu)
    got.backward(upstream_R)

    exact_hidden, exact_weight = (x.detach().double().requires_grad_() for x in (hidden, weight))
    logps_SBV = (exact_hidden @ exact_weight[:VOCAB].T).log_softmax(-1)
    expected = logps_SBV.gather(-1, labels_BS.T[..., None]).squeeze(-1)[20:].sum(dim=0)
    expected.backward(upstream_R.double())

    value_bound, gradient_bound = BOUNDS[dtype]
    torch.testing.assert_close(got.double(), expected, rtol=value_bound, atol=0)
    for ours, theirs in ((hidden.grad, exact_hidden.grad), (weight.grad, exact_weight.grad)):
        assert _largest_difference(ours, theirs) < gradient_bound
    assert weight.grad[VOCAB:].abs().max() == 0


def _largest_difference(found: Tensor, expected: Tensor) -> float:
    """Relative to the largest element."""
    return float((found.double() - expected).abs().max() / expected.abs().max())
