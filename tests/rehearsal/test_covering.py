"""The tiny cases have every pair of settings that can stand together; all of them begin with the most telling ones."""

from __future__ import annotations

from itertools import islice

import pytest

from tests.rehearsal.cases import FACTORS, all_tiny_cases, is_valid, tiny_case_of, tiny_cases
from tests.rehearsal.covering import Row, coverable, covering_rows, every_row

FEW = {"a": (1, 2), "b": (1, 2, 3), "c": (1, 2), "d": (1, 2, 3)}


def no_1_with_2(row: Row) -> bool:
    return not (row["a"] == 1 and row["b"] == 2)


def test_every_pair_of_values_that_can_occur_is_in_some_case() -> None:
    everything = every_row(FACTORS, is_valid)
    cases = covering_rows(everything, 2)
    assert coverable(cases, 2) == coverable(everything, 2)
    assert all(is_valid(row) for row in cases)


def test_there_are_few_cases_and_each_has_a_name_of_its_own() -> None:
    keys = [case.key for case in tiny_cases()]
    assert len(set(keys)) == len(keys) <= 40


def test_a_key_names_its_case() -> None:
    assert [tiny_case_of(case.key) for case in tiny_cases()] == tiny_cases()


def test_all_cases_begin_with_those_of_every_pair() -> None:
    first = tiny_cases()
    assert list(islice(all_tiny_cases(), len(first))) == first


@pytest.mark.parametrize("strength", [2, 3])
def test_what_nothing_covers_is_told_from_what_cannot_occur(strength: int) -> None:
    rows = every_row(FEW, no_1_with_2)
    assert (("a", 1), ("b", 2)) not in coverable(rows, 2)
    chosen = covering_rows(rows, strength)
    assert coverable(chosen, strength) == coverable(rows, strength)
    assert len(chosen) < len(rows)


def test_what_others_have_is_not_covered_again() -> None:
    rows = every_row(FEW, no_1_with_2)
    pairs = covering_rows(rows, 2)
    threes = covering_rows(rows, 3, pairs)
    assert coverable(pairs + threes, 3) == coverable(rows, 3)
    assert len(threes) < len(covering_rows(rows, 3))
    assert covering_rows(rows, 2, pairs) == []
