"""Floating-point operations of a rank, by where they are: products of matrices, and attention."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

Place = Literal["layers", "attention", "head"]


class Work:
    """A multiply-add is two operations."""

    def __init__(self) -> None:
        self.flops: Counter[Place] = Counter()
        self._place: Place = "layers"

    @contextmanager
    def at(self, place: Place) -> Iterator[None]:
        """Products inside the block are counted there."""
        before, self._place = self._place, place
        try:
            yield
        finally:
            self._place = before

    def product(self, rows: int, columns: int, inner: int, count: int = 1) -> None:
        self.flops[self._place] += 2 * rows * columns * inner * count

    def attention(self, scores: int, channels: int, *, products: int) -> None:
        """`products` products of each score with a head's channels: 2 forward, 5 backward."""
        self.flops["attention"] += 2 * scores * channels * products
