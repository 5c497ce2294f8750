"""A covering array: few cases in which every pair, or every three, of different factors' values occurs that can."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations, product
from typing import Any

Values = Mapping[str, Sequence[Any]]
Row = dict[str, Any]
Combination = tuple[tuple[str, Any], ...]


def combinations_in(row: Row, strength: int) -> set[Combination]:
    """Values of `strength` different factors that a case has together."""
    return set(combinations(sorted(row.items(), key=lambda item: item[0]), strength))


def every_row(factors: Values, is_valid: Callable[[Row], bool]) -> list[Row]:
    """All valid combinations."""
    rows = (dict(zip(factors, values, strict=True)) for values in product(*factors.values()))
    return [row for row in rows if is_valid(row)]


def coverable(rows: Iterable[Row], strength: int) -> set[Combination]:
    """Combinations of `strength` values that some valid row has."""
    return set().union(*(combinations_in(row, strength) for row in rows))


def covering_rows(rows: Sequence[Row], strength: int, taken: Iterable[Row] = ()) -> list[Row]:
    """Rows that have, with those already `taken`, every combination that any has: each time the one that adds most."""
    bits: dict[Combination, int] = {}
    # A row's combinations as the bits of a number, which are soon counted.
    masks = [_mask(row, strength, bits) for row in rows]
    missing = (1 << len(bits)) - 1
    for row in taken:
        missing &= ~_mask(row, strength, bits)
    chosen: list[Row] = []
    while missing:
        best = max(range(len(rows)), key=lambda index: (masks[index] & missing).bit_count())
        chosen.append(rows[best])
        missing &= ~masks[best]
    return chosen


def _mask(row: Row, strength: int, bits: dict[Combination, int]) -> int:
    return sum(1 << bits.setdefault(combination, len(bits)) for combination in combinations_in(row, strength))
