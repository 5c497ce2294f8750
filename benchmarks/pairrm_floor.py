"""The fewest FLOPs that a set of PairRM's rows takes, and how fast this machine multiplies matrices.

Their quotient bounds every exact scorer: what two scorers must both compute bounds how far one can be ahead.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

import torch
from torch.nn.functional import linear

from benchmarks.random_pairrm import PLACES, Size

_TOKENS = 2048
_WANTED = 3
"""Tokens whose last states the head reads."""


def needed_flops(size: Size, lengths: Iterable[int]) -> int:
    """Matrix products of rows of these lengths, no padding, the last layer at three tokens; a multiply-add is two."""
    return sum(_of_row(size, length) for length in lengths)


def _of_row(size: Size, length: int) -> int:
    hidden, near = size.hidden, min(2 * length - 1, PLACES)

    def layer(queries: int) -> int:
        products = length * 2 * hidden  # keys and values
        products += queries * 10 * hidden  # queries, output, and the inner layer's two of four times the width
        products += queries * 2 * length  # scores and context
        products += (queries + length) * near  # queries and keys x table
        return 2 * hidden * products

    return (size.layers - 1) * layer(length) + layer(_WANTED)


def gemm_rate(size: Size, repeats: int = 5) -> float:
    """FLOPs a processor second of the inner layer's two products in fp32, the best of some."""
    x_TH, up = torch.randn(_TOKENS, size.hidden), torch.randn(4 * size.hidden, size.hidden)
    down = up.mT.contiguous()

    def once() -> float:
        start = time.process_time()
        linear(linear(x_TH, up), down)
        return time.process_time() - start

    return 2 * 2 * x_TH.numel() * len(up) / min(once() for _ in range(repeats))
