"""A JSON list is read value by value as it would be as a whole."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_sspo.artifacts.json_text import parse_json, parse_json_list
from nemo_sspo.errors import UserError

FILE = Path("p.json")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(st.lists(VALUES, min_size=1, max_size=6), st.sampled_from([None, 1]), st.text(" \t\r\n", max_size=3))
def test_the_values_are_those_of_the_whole(values: list, indent: int | None, spaces: str) -> None:
    raw = f"{spaces}{json.dumps(values, indent=indent)}{spaces}".encode()
    assert list(parse_json_list(raw, FILE)) == parse_json(raw, FILE) == values


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b'[{"a": 1} {"b": 2}]', r"line 3: not JSON \(Expecting ',' delimiter at column 11\)"),
        (b'[{"a": 1},\n]', r"line 4: not JSON \(Expecting value at column 1\)"),
        (b'[{"a": 1}', r"line 3: not JSON \(Expecting ',' delimiter at column 10\)"),
        (b"[1] 2", r"line 3: not JSON \(Extra data at column 5\)"),
        (b'[1, {"a": 1, "a": 2}]', "`a` is there twice in one object"),
        (b"[" * 99_999, "JSON nested too deeply"),
        (b'[1, "\xff"]', r"line 3: not UTF-8 \(byte 0xff at column 6\)"),
    ],
)
def test_what_is_wrong_is_named(raw: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        list(parse_json_list(raw, FILE, line=3))


def test_integers_of_many_digits_are_read() -> None:
    assert list(parse_json_list(b"[1, " + b"9" * 5000 + b", 2]", FILE)) == [1, float("inf"), 2]
