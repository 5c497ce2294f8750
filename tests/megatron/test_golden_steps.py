from __future__ import annotations

import math
from copy import deepcopy
from typing import Any

import pytest

from tests.megatron.golden_steps import differences, distances

RECORD: dict[str, Any] = {
    name: {
        "reference": [[-1.0, -2.0]],
        "steps": [{"step": 1, "loss": 3.0, "lr": 0.1}, {"step": 2, "loss": 2.0, "lr": 0.1}],
        "tensors": {"a": "12", "b": "34"},
    }
    for name in ("TP2", "DP2")
}


def test_equal_records_have_no_differences() -> None:
    assert differences(RECORD, deepcopy(RECORD)) == []


def test_what_differs_first_is_named_in_each_layout() -> None:
    other = deepcopy(RECORD)
    other["TP2"]["steps"][1]["loss"] = 2.5
    other["TP2"]["tensors"]["a"] = "56"
    other["DP2"]["tensors"]["b"] = "78"
    assert differences(RECORD, other) == ["TP2: steps 2 loss is 2.0 and 2.5", "DP2: tensors b is 34 and 78"]


def test_what_is_missing_differs() -> None:
    other = deepcopy(RECORD)
    last = other["TP2"]["steps"].pop()
    del other["DP2"]
    found = differences(other, RECORD)
    assert found[0] == f"TP2: steps 2 is None and {last}"
    assert found[1].startswith("DP2: reference is None and ")


def test_how_far_two_records_are_is_the_largest_of_a_layout() -> None:
    other = deepcopy(RECORD)
    other["TP2"]["steps"][1]["loss"] = 2.0 + 4e-6
    other["TP2"]["reference"][0][1] = -2.0 - 2e-6
    other["DP2"]["tensors"]["a"] = "other bytes"
    found = distances(RECORD, other)
    assert found == {"TP2": pytest.approx(2e-6, rel=1e-3), "DP2": 0.0}
    other["DP2"]["steps"].pop()
    assert distances(RECORD, other)["DP2"] == math.inf
