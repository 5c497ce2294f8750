"""What a rank has said: calls and bytes by "operation group", and the sizes of types."""

from __future__ import annotations

from collections import Counter

FP8, BF16, FP32, INT64, FP64 = 1, 2, 4, 8, 8
EXPERTS, EXPERT_CUTS = "EXPERT_MODEL_PARALLEL_GROUP", "EXPERT_TENSOR_PARALLEL_GROUP"
"""Megatron's names of groups: ranks that share the experts, and ranks that have parts of the same ones."""
EXPERT_PARTS = "EXPERT_TENSOR_AND_MODEL_PARALLEL_GROUP"
"""Both."""
EXPERT_REPLICAS = "EXPERT_DATA_PARALLEL_GROUP"
"""Ranks that have the same experts."""


class Said:
    """Bytes are what the rank hands over."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()

    def add(self, operation: str, group: str, count: int, size: int) -> None:
        """`count` calls of `size` bytes each."""
        self.add_uneven(operation, group, count, count * size)

    def add_uneven(self, operation: str, group: str, count: int, total: int) -> None:
        """`count` calls, of `total` bytes together."""
        if count:
            self.calls[f"{operation} {group}"] += count
            self.bytes[f"{operation} {group}"] += total
