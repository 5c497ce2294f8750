"""What a rank says to other ranks: calls and bytes, by operation and group."""

from __future__ import annotations

from collections import Counter


class Traffic:
    """Since the step began. Bytes are those that this rank hands over, not what the network makes of them."""

    def __init__(self) -> None:
        self.calls: Counter[tuple[str, str]] = Counter()
        self.bytes: Counter[tuple[str, str]] = Counter()

    def start_step(self) -> None:
        self.calls.clear()
        self.bytes.clear()

    def note(self, operation: str, group: str, size: int) -> None:
        self.calls[operation, group] += 1
        self.bytes[operation, group] += size
