"""What is wrong with a model's JSON file is one line, also where Python's parser gives up."""

from __future__ import annotations

from pathlib import Path

import pytest

from nemo_sspo.artifacts.json_files import json_or_empty, read_json, read_json_object
from nemo_sspo.errors import UserError

BROKEN = {
    "cut": b'{"a": ',
    "deep": b"[" * 100_000 + b"]" * 100_000,
    "long": b'{"a": ' + b"9" * 5_000 + b"}",
    "wide": '{"a": 1}'.encode("utf-16"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_python_cannot_read_is_named(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_bytes(BROKEN[kind])
    for read in (read_json, read_json_object, json_or_empty):
        with pytest.raises(UserError, match=r"config\.json: not valid JSON"):
            read(file)


def test_another_value_is_no_object(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text("[1]")
    assert read_json(file) == [1]
    for read in (read_json_object, json_or_empty):
        with pytest.raises(UserError, match="expected a JSON object"):
            read(file)


def test_a_file_that_is_missing_is_empty_or_said_with_what_to_do(tmp_path: Path) -> None:
    assert json_or_empty(tmp_path / "config.json") == {}
    with pytest.raises(UserError, match=r"no config\.json; fetch it$"):
        read_json_object(tmp_path / "config.json", "fetch it")


def test_a_folder_in_its_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").mkdir()
    with pytest.raises(UserError, match=r"config\.json: cannot be read"):
        read_json(tmp_path / "config.json")
