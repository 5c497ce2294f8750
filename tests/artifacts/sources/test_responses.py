"""Responses from files: the three shapes of a record, and which line a message blames."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nemo_sspo.artifacts.sources.responses import read_responses
from nemo_sspo.errors import UserError

USER = {"role": "user", "content": "Hi"}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def write(path: Path, *records: dict) -> str:
    path.write_text("\n".join(map(json.dumps, records)) + "\n")
    return str(path)


def test_every_shape_of_a_record_is_the_same_pair(tmp_path: Path) -> None:
    shapes = [
        {"prompt": "Hi", "responses": ["a", "b"]},
        {"messages": [USER], "chosen": "a", "rejected": "b"},
        {"prompt": [USER], "chosen": [assistant("a")], "rejected": [assistant("b")]},
        {"prompt": "Hi", "chosen": [USER, assistant("a")], "rejected": [USER, assistant("b")]},
        {"chosen": [USER, assistant("a")], "rejected": [USER, assistant("b")], "score_chosen": 7.5},
    ]
    for number, shape in enumerate(shapes):
        read = read_responses(write(tmp_path / f"{number}.jsonl", shape))
        assert read.responses == {(("user", "Hi"),): ("a", "b")}
        assert read.k == 2
    pq.write_table(pa.Table.from_pylist(shapes[4:]), tmp_path / "r.parquet")
    assert read_responses(str(tmp_path / "r.parquet")).responses == {(("user", "Hi"),): ("a", "b")}


def test_a_directory_is_read_as_one_source_and_its_training_part_alone(tmp_path: Path) -> None:
    folder = tmp_path / "set" / "data"
    folder.mkdir(parents=True)
    for part in range(2):
        rows = [{"prompt": f"{part}{n}", "chosen": "a", "rejected": "b"} for n in range(3)]
        pq.write_table(pa.Table.from_pylist(rows), folder / f"train-0000{part}-of-00002.parquet")
    pq.write_table(pa.table({"prompt": ["t"], "chosen": ["a"], "rejected": ["b"]}), folder / "test-00000.parquet")
    (tmp_path / "set" / "dataset_infos.json").write_text("{}")
    read = read_responses(str(tmp_path / "set"))
    assert [key[0][1] for key in read.responses] == ["00", "01", "02", "10", "11", "12"]
    assert read.prompts.conversations[-1].where == f"{folder}/train-00001-of-00002.parquet row 3"


FINE = {"prompt": "fine", "responses": ["a", "b"]}
PAIR = {"prompt": "x", "chosen": "a", "rejected": "b"}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"prompt": "x", "responses": ["a", "b", "c"]}, "3 responses, .* line 1 has 2"),
        ({"prompt": "x", "responses": ["a"]}, "at least 2 responses"),
        ({"prompt": "x", "responses": "ab"}, "at least 2 responses"),
        ({"prompt": "x", "responses": ["a", " \n"]}, "response 2 is empty"),
        ({"prompt": "x", "responses": ["a", 3]}, "response 2 is a number"),
        ({"prompt": "x", "responses": ["a", None]}, "response 2 is null"),
        (
            {"prompt": "x", "responses": ["a", "b"], "finish_reasons": ["stop"]},
            "`finish_reasons` is .*'stop'.*; expected",
        ),
        (
            {"prompt": "x", "responses": ["a", "b"], "finish_reasons": ["stop", "abort"]},
            "expected `stop` or `length` of",
        ),
        (
            {"prompt": "x", "chosen": "a", "rejected": "b", "finish_reason_chosen": 1},
            r"`finish_reason_\*` is \[1, 'stop'\]",
        ),
        ({"prompt": "x", "chosen": "a"}, r"neither `responses` nor `chosen` and `rejected` .*\['chosen', 'prompt'\]"),
        ({"prompt": "x", "chosen": [USER, assistant("a")], "rejected": "b"}, "`chosen` answers another conversation"),
        ({"prompt": "x", "chosen": [USER], "rejected": "b"}, "`chosen`: expected messages .* end with the assistant"),
        ({"prompt": "x", "chosen": "a", "rejected": []}, "`rejected`: expected messages"),
        ({"prompt": "fine", "responses": ["c", "d"]}, "the same prompt as .* line 1"),
        ({"responses": ["c", "d"]}, "neither `prompt` nor `messages`"),
    ],
)
def test_a_bad_record_is_named(tmp_path: Path, record: dict, message: str) -> None:
    with pytest.raises(UserError, match=rf"r\.jsonl line 2.*{message}"):
        read_responses(write(tmp_path / "r.jsonl", FINE, record))


def test_of_equal_prompts_the_first_is_kept_when_asked(tmp_path: Path) -> None:
    source = write(tmp_path / "r.jsonl", FINE, {"prompt": "fine", "responses": ["c", "d"]})
    assert read_responses(source, drop_duplicates=True).responses == {(("user", "fine"),): ("a", "b")}


def test_null_is_absent_in_responses_files_too(tmp_path: Path) -> None:
    rows = [
        {"prompt": "Hi", "messages": None, "responses": None, "chosen": [assistant("a")], "rejected": [assistant("b")]},
        {"prompt": "Ho", "messages": None, "responses": ["c", "d"], "chosen": None, "rejected": None},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "r.parquet")
    for source in (write(tmp_path / "r.jsonl", *rows), str(tmp_path / "r.parquet")):
        assert list(read_responses(source).responses.values()) == [("a", "b"), ("c", "d")]


def test_a_system_field_stands_in_front_of_the_prompt(tmp_path: Path) -> None:
    """The answers' own conversation may repeat it or leave it out, and may not have another."""
    turn = {"role": "system", "content": "S"}
    key = (("system", "S"), ("user", "Hi"))
    for before in ([], [USER], [turn, USER]):
        record = {"system": "S", "prompt": "Hi", "chosen": [*before, assistant("a")], "rejected": "b"}
        assert read_responses(write(tmp_path / "r.jsonl", record)).responses == {key: ("a", "b")}
    blank = {"system": "", "prompt": "Hi", "chosen": [assistant("a")], "rejected": "b"}
    assert read_responses(write(tmp_path / "r.jsonl", blank)).responses == {(("user", "Hi"),): ("a", "b")}
    other = record | {"chosen": [{"role": "system", "content": "T"}, USER, assistant("a")]}
    with pytest.raises(UserError, match="`chosen` answers another conversation"):
        read_responses(write(tmp_path / "r.jsonl", other))


def test_a_lone_surrogate_in_a_response_is_named(tmp_path: Path) -> None:
    record = {"prompt": "H", "chosen": [assistant("a\udfff")], "rejected": "b"}
    with pytest.raises(UserError, match=r"r\.jsonl line 1: `chosen` holds the lone surrogate \\udfff at character 2"):
        read_responses(write(tmp_path / "r.jsonl", record))
