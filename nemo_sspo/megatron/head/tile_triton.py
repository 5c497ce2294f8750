# mypy: disable-error-code="no-untyped-def"
"""`tile.TileMath` as two Triton kernels, both bound by memory: a tile is read once forward, once backward.

Forward a program walks along one row in blocks, with a running maximum; a sum that it has outgrown is scaled down, so
that no second read is needed. There are many times more rows than a GPU has multiprocessors: none is cut, and nothing
is added atomically. Backward every block of every row is a program of its own.

A row's address is computed in 64 bits: a tile may have more than 2^31 elements. Loads and stores end at a multiple of
16 columns, so that they stay 16 bytes wide at any vocabulary; what lies there beyond the last column is the tile's own
alignment (`common.logits_tile`): the sums leave it out, the gradient sets it to 0, and nothing reads it.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from nemo_sspo.megatron.head.normalizer import Normalizer

DEVICES = frozenset({"cuda"} | ({"cpu"} if triton.knobs.runtime.interpret else set()))
"""Where the kernels run. With TRITON_INTERPRET=1 Triton executes them on a CPU, which is how they are tested there."""

# Elements of a row that a program has at once, and its warps: 16 of bf16 a thread.
BLOCK, WARPS = 4096, 8
_ALIGNMENT = tl.constexpr(16)


def statistics(logits_CV: Tensor, labels_C: Tensor, softcap: float | None) -> tuple[Tensor, Tensor, Tensor]:
    tokens, columns = logits_CV.shape
    maximum_C, total_C, target_C = torch.empty(3, tokens, device=logits_CV.device)
    statistics_kernel[(tokens,)](
        logits_CV, labels_C, maximum_C, total_C, target_C, columns, _row_stride(logits_CV),
        softcap=softcap, block=BLOCK, num_warps=WARPS,
    )  # fmt: skip
    return maximum_C, total_C, target_C


def to_gradient_(
    logits_CV: Tensor, labels_C: Tensor, dloss_dlogp_C: Tensor, of_all: Normalizer, softcap: float | None
) -> None:
    tokens, columns = logits_CV.shape
    gradient_kernel[(tokens, triton.cdiv(columns, BLOCK))](
        logits_CV, labels_C, dloss_dlogp_C.contiguous(), of_all.maximum_C, of_all.total_C, columns,
        _row_stride(logits_CV), softcap=softcap, block=BLOCK, num_warps=WARPS,
    )  # fmt: skip


def _row_stride(logits_CV: Tensor) -> int:
    row, column = logits_CV.stride()
    if column != 1 or row % _ALIGNMENT.value:
        raise ValueError(f"a tile of strides {(row, column)} is none of `head_parts.logits_tile`")
    return row


@triton.jit
def statistics_kernel(
    logits, labels, maximum, total, target, columns, row_stride,
    softcap: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0)
    row = logits + token.to(tl.int64) * row_stride
    highest = -float("inf")
    sums = tl.zeros((block,), tl.float32)  # added up at the end: one reduction in the loop, not two
    for start in range(0, columns, block):
        logit, _ = _capped(row, start + tl.arange(0, block), columns, softcap)
        above = tl.maximum(highest, tl.max(logit, axis=0))
        sums = sums * tl.exp(highest - above) + tl.exp(logit - above)
        highest = above
    label = tl.load(labels + token)
    is_local = (label >= 0) & (label < columns)
    logit, _ = _capped(row, tl.where(is_local, label, 0), columns, softcap)
    tl.store(maximum + token, highest)
    tl.store(total + token, tl.sum(sums, axis=0))
    tl.store(target + token, tl.where(is_local, logit, 0.0))


@triton.jit
def gradient_kernel(
    logits, labels, dloss_dlogp, maximum, total, columns, row_stride,
    softcap: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0)
    row = logits + token.to(tl.int64) * row_stride
    column = tl.program_id(1) * block + tl.arange(0, block)
    logit, derivative = _capped(row, column, columns, softcap)
    softmax = tl.exp(logit - tl.load(maximum + token)) / tl.load(total + token)
    label = tl.load(labels + token).to(tl.int32)
    grad = tl.load(dloss_dlogp + token) * (tl.where(column == label, 1.0, 0.0) - softmax) * derivative
    tl.store(row + column, grad.to(logits.dtype.element_ty), mask=column < _aligned(columns))


@triton.jit
def _capped(row, column, columns, softcap: tl.constexpr):
    """y and dy/dx of a row's columns, in fp32; y = -inf beyond the last one."""
    is_inside = column < columns
    logit = tl.load(row + column, mask=column < _aligned(columns), other=0.0).to(tl.float32)
    logit = tl.where(is_inside, logit, 0.0)
    derivative = 1.0
    if softcap is not None:
        tanh, derivative = _tanh(logit / softcap)
        logit = softcap * tanh
    return tl.where(is_inside, logit, -float("inf")), derivative


@triton.jit
def _aligned(columns):
    return tl.cdiv(columns, _ALIGNMENT) * _ALIGNMENT


@triton.jit
def _tanh(x):
    """tanh x and its derivative, to 2 units in the last place."""
    e = tl.exp(-2.0 * tl.abs(x))  # never overflows
    far = (1.0 - e) / (1.0 + e)
    # Near 0 the difference cancels. Taylor's series to x^9: what it leaves out is below 1e-8 of the sum for |x| < 1/4.
    square = x * x
    near = x + x * square * (-1 / 3 + square * (2 / 15 + square * (-17 / 315 + square * (62 / 2835))))
    tanh = tl.where(square < 1 / 16, near, tl.where(x < 0, -far, far))
    return tanh, 4.0 * e / ((1.0 + e) * (1.0 + e))
