"""A covering array: few cases in which every pair of two factors' values occurs that can occur at all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations, product
from typing import Any

Values = Mapping[str, Sequence[Any]]
Row = dict[str, Any]
Pair = tuple[tuple[str, Any], tuple[str, Any]]


def pairs_in(row: Row) -> set[Pair]:
    """Pairs of values of different factors in a case."""
    return set(combinations(sorted(row.items(), key=lambda item: item[0]), 2))


def every_row(factors: Values, is_valid: Callable[[Row], bool]) -> list[Row]:
    """All valid combinations."""
    rows = (dict(zip(factors, values, strict=True)) for values in product(*factors.values()))
    return [row for row in rows if is_valid(row)]


def coverable(rows: Iterable[Row]) -> set[Pair]:
    """Pairs that some valid combination has."""
    return set().union(*map(pairs_in, rows))


def covering_rows(rows: Sequence[Row]) -> list[Row]:
    """Valid combinations that have every pair that any has: each time the one with most that are still missing."""
    bits: dict[Pair, int] = {}
    # A row's pairs as the bits of a number, which are soon counted.
    masks = [sum(1 << bits.setdefault(pair, len(bits)) for pair in pairs_in(row)) for row in rows]
    missing = (1 << len(bits)) - 1
    chosen: list[Row] = []
    while missing:
        best = max(range(len(rows)), key=lambda index: (masks[index] & missing).bit_count())
        chosen.append(rows[best])
        missing &= ~masks[best]
    return chosen
