"""The tiny cases have every pair of settings that can stand together."""

from __future__ import annotations

from tests.rehearsal.cases import FACTORS, is_valid, tiny_cases
from tests.rehearsal.covering import coverable, covering_rows, every_row, pairs_in


def test_every_pair_of_values_that_can_occur_is_in_some_case() -> None:
    everything = every_row(FACTORS, is_valid)
    cases = covering_rows(everything)
    assert set().union(*map(pairs_in, cases)) == coverable(everything)
    assert all(is_valid(row) for row in cases)


def test_there_are_few_cases_and_each_has_a_name_of_its_own() -> None:
    keys = [case.key for case in tiny_cases(None)]
    assert len(set(keys)) == len(keys) <= 40


def test_pairs_that_nothing_covers_are_told_from_those_that_cannot_occur() -> None:
    factors = {"a": (1, 2), "b": (1, 2), "c": (1, 2)}
    rows = every_row(factors, lambda row: not (row["a"] == 1 and row["b"] == 2))
    assert (("a", 1), ("b", 2)) not in coverable(rows)
    assert len(coverable(rows)) == 11
    assert coverable(covering_rows(rows)) == coverable(rows)
