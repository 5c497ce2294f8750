"""Bytes moved, worked out by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest

pytest.importorskip("torch")

import torch
from torch import Tensor

from benchmarks.measure import traffic

A, B = torch.ones(10, 20), torch.ones(20, 30, dtype=torch.float32)
INDEX = torch.arange(5)[:, None]

CASES: dict[str, tuple[Callable[[], object], int]] = {
    "product": (lambda: A @ B, 4 * (200 + 600 + 300)),
    "product into place": (lambda: torch.mm(A, B, out=torch.empty(10, 30)), 4 * (200 + 600 + 300)),
    "two in, one out": (lambda: A + A.clone(), 4 * (2 * 200 + 3 * 200)),
    "in place": (lambda: A.clone().mul_(2), 4 * (2 * 200 + 2 * 200)),
    "view": (lambda: A.t().reshape(400 // 2)[:5], 4 * 2 * 200),  # a transposed reshape copies
    "nothing": (lambda: A.view(20, 10).t()[3:], 0),
    "zeros": (lambda: torch.zeros_like(A), 4 * 200),
    "conversion": (lambda: A.bfloat16(), (4 + 2) * 200),
    "copied over": (lambda: torch.empty(10, 20, dtype=torch.bfloat16).copy_(A), (4 + 2) * 200),
    "gathered": (lambda: A[:5].gather(1, INDEX), 8 * 5 + 2 * 4 * 5),
    "scattered": (lambda: A[:5].clone().scatter_add_(1, INDEX, B[:5, :1]), 2 * 4 * 100 + 8 * 5 + 3 * 4 * 5),
}


@pytest.mark.parametrize("name", CASES)
def test_every_tensor_counts_once_per_operation(name: str) -> None:
    run, expected = CASES[name]
    assert traffic(run) == expected


def test_backward_counts_too() -> None:
    weight: Tensor = torch.ones(20, 30, requires_grad=True)
    forward = 4 * (200 + 600 + 300) + 4 * (300 + 1)  # product and sum
    grad_weight = 4 * (200 + 300 + 600)  # of the expanded ones, as large as they look
    assert traffic(lambda: (A @ weight).sum().backward()) == pytest.approx(forward + grad_weight, rel=0.01)
