"""Prompts from files: what is read, what is repaired, and which line a message blames."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nemo_sspo.artifacts.sources.prompts import read_prompts
from nemo_sspo.errors import UserError
from tests import processor_time


def write(path: Path, *lines: str | bytes | dict) -> str:
    encoded = [
        json.dumps(x).encode() if isinstance(x, dict) else x if isinstance(x, bytes) else x.encode() for x in lines
    ]
    path.write_bytes(b"\n".join(encoded) + b"\n")
    return str(path)


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def test_prompt_and_messages_are_the_same_conversation(tmp_path: Path) -> None:
    source = write(tmp_path / "p.jsonl", {"prompt": "Hi", "other": 1}, "", {"messages": [user("Ho")]})
    read = read_prompts(source)
    assert [c.messages for c in read.conversations] == [(user("Hi"),), (user("Ho"),)]
    assert [c.where for c in read.conversations] == [f"{source} line 1", f"{source} line 3"]
    assert read.duplicates == 0


def test_system_and_earlier_turns_are_kept(tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "Be brief"}, user("a"), {"role": "assistant", "content": "b"}, user("c")]
    read = read_prompts(write(tmp_path / "p.jsonl", {"messages": turns}))
    assert list(read.conversations[0].messages) == turns


def test_parquet_equals_jsonl(tmp_path: Path) -> None:
    rows = [{"prompt": "one"}, {"prompt": "two\nlines"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "p.parquet")
    from_parquet = read_prompts(str(tmp_path / "p.parquet")).conversations
    from_jsonl = read_prompts(write(tmp_path / "p.jsonl", *rows)).conversations
    assert [c.messages for c in from_parquet] == [c.messages for c in from_jsonl]
    assert from_parquet[1].where == f"{tmp_path / 'p.parquet'} row 2"


def test_byte_order_mark_is_no_part_of_the_first_line(tmp_path: Path) -> None:
    source = write(tmp_path / "p.jsonl", b"\xef\xbb\xbf" + json.dumps({"prompt": "Hi"}).encode())
    assert read_prompts(source).conversations[0].messages == (user("Hi"),)


BOM = b"\xef\xbb\xbf"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b'{"prompt": "a"}\n{"prompt": "caf\xe9"}',
            "line 2: not UTF-8 (byte 0xe9 at column 16); save the file as UTF-8",
        ),
        ('{"prompt": "a"}'.encode("utf-16"), "line 1: not UTF-8 (byte 0xff at column 1); it looks like UTF-16; save"),
        ('{"prompt": "a"}'.encode("utf-16-le"), "line 1: not JSON (Expecting property name"),
        ('{"prompt": "a"}'.encode("utf-16-le"), "it holds NUL bytes, as UTF-16 does: save the file as UTF-8"),
        (
            b'{"prompt": "a"}\n\n\n{"prompt": "a\\ud800b"}',
            r"line 4: `prompt` holds the lone surrogate \ud800 at character 2",
        ),
        (
            b'{"messages": [{"role": "user", "content": "\\udce9"}]}',
            r"line 1: `messages`, message 1 holds the lone surr",
        ),
        (b'{"system": "\\udfff", "prompt": "a"}', "line 1: `system` holds the lone surrogate"),
        (b'{"prompt": "a", "prompt": "b"}', "line 1: `prompt` is there twice in one object"),
        (b'{"prompt": "a", "x": ' + b"[" * 20_000, "line 1: JSON nested too deeply"),
        (b'{"prompt": NaN}', "line 1: `prompt` is NaN; expected text"),
        (b'{"prompt": "a"}\r{"prompt": "b"}', "line 1: not JSON (Extra data at column 17)"),
        (b'{"prompt": "a\0b"}', "line 1: not JSON (Invalid control character"),
    ],
)
def test_text_that_is_not_what_was_meant_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "p.jsonl").write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_prompts(str(tmp_path / "p.jsonl"))
    assert str(caught.value).startswith(f"{tmp_path / 'p.jsonl'} line ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_another_program_writes_without_change_of_meaning_is_read(tmp_path: Path) -> None:
    """Line ends of Windows, two files with their marks laid end to end, escaped pairs, large numbers nobody reads."""
    lines = [
        BOM + b'{"prompt": "a"}\r',
        BOM + b'{"prompt": "b", "answer": ' + b"9" * 5000 + b"}",
        rb'{"prompt": "\ud83d\ude00", "score": Infinity}',
        b'{"prompt": "c\\u0000d"}',
    ]
    read = read_prompts(write(tmp_path / "p.jsonl", *lines))
    assert [c.messages[0]["content"] for c in read.conversations] == ["a", "b", "😀", "c\0d"]


def test_text_of_a_parquet_file_that_is_not_utf8_is_named_by_its_row(tmp_path: Path) -> None:
    texts = pa.array([b"a", b"b", b"caf\xe9"], pa.binary()).cast(pa.string(), safe=False)
    pq.write_table(pa.table({"prompt": texts}), tmp_path / "p.parquet")
    with pytest.raises(UserError, match=r"p\.parquet row 3: not UTF-8 \(byte 0xe9\)"):
        read_prompts(str(tmp_path / "p.parquet"))


NULLS = [
    {"prompt": None, "messages": [user("a")], "system": None},
    {"prompt": "b", "messages": None, "system": "Be brief"},
    {"prompt": "c", "messages": None, "system": " "},
]


def _jsonl(path: Path, rows: list[dict]) -> str:
    return write(path.with_suffix(".jsonl"), *rows)


def _parquet(path: Path, rows: list[dict]) -> str:
    pq.write_table(pa.Table.from_pylist(rows), path.with_suffix(".parquet"))
    return str(path.with_suffix(".parquet"))


def _folder(path: Path, rows: list[dict]) -> str:
    path.mkdir()
    write(path / "one.jsonl", *rows[:1])
    write(path / "two.jsonl", *rows[1:])
    return str(path)


@pytest.mark.parametrize("store", [_jsonl, _parquet, _folder])
def test_null_is_absent_and_a_system_field_the_first_message_in_every_container(tmp_path: Path, store) -> None:
    read = read_prompts(store(tmp_path / "set", NULLS))
    system = {"role": "system", "content": "Be brief"}
    assert [c.messages for c in read.conversations] == [(user("a"),), (system, user("b")), (user("c"),)]


def test_the_same_prompt_under_two_systems_is_two_prompts(tmp_path: Path) -> None:
    rows = [{"system": language, "prompt": "hi"} for language in ("French", "German")]
    assert len(read_prompts(write(tmp_path / "p.jsonl", *rows)).conversations) == 2


def test_a_data_set_id_is_read_as_a_file_is(monkeypatch: pytest.MonkeyPatch) -> None:
    class Rows(list):
        def __iter__(self):
            yield from super().__iter__()
            raise OSError("the connection was lost\nin the middle")

    rows: list = list(NULLS)
    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=lambda name, split: rows))
    read = read_prompts("owner/name:train")
    assert [c.messages[-1]["content"] for c in read.conversations] == ["a", "b", "c"]
    assert read.conversations[1].where == "owner/name:train row 2"
    assert read.conversations[1].messages[0]["role"] == "system"
    rows = Rows(NULLS)
    with pytest.raises(UserError, match=r"cannot load this data set after row 3 \(the connection was lost\)$"):
        read_prompts("owner/name")


def test_over_several_files_a_message_names_the_file_and_its_own_line(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "set", [{"prompt": "a"}, {"prompt": "b"}, {"prompt": "a"}])
    with pytest.raises(UserError) as caught:
        read_prompts(folder)
    assert str(caught.value).startswith(f"{folder}/two.jsonl line 2: the same prompt as {folder}/one.jsonl line 1;")


def test_duplicates_name_both_lines_or_are_dropped(tmp_path: Path) -> None:
    source = write(tmp_path / "p.jsonl", {"prompt": "a"}, {"prompt": "b"}, {"messages": [user("a")]})
    with pytest.raises(UserError, match=r"line 3: the same prompt as .*p\.jsonl line 1.*data\.duplicate_prompts=drop"):
        read_prompts(source)
    read = read_prompts(source, duplicates="drop")
    assert [c.messages[0]["content"] for c in read.conversations] == ["a", "b"]
    assert read.duplicates == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not JSON"),
        ("[1]", "a list, not a JSON object"),
        ({"turns": ["q"], "id": 3}, r"neither `prompt` nor `messages` among its fields \['id', 'turns'\]"),
        ({"prompt": "  \n"}, "empty prompt"),
        ({"prompt": 3}, "`prompt` is a number"),
        ({"prompt": None}, r"neither `prompt` nor `messages` among its fields \[\]"),
        ({"prompt": "a", "system": 3}, "`system` is a number"),
        (
            {"messages": [{"role": "system", "content": "x"}, user("a")], "system": "y"},
            "`system` differs from the system",
        ),
        (
            {"prompt": "a", "system_prompt": "b"},
            "`system_prompt` is not read, and would change the prompt; name it `sys",
        ),
        ({"prompt": "a", "tools": [{"name": "f"}]}, "`tools` is not read"),
        ({"messages": [None, user("x")]}, "message 1: expected an object"),
        ({"messages": [{"role": "user", "content": None}]}, "message 1: expected an object"),
        ({"messages": [{**user("x"), "tool_calls": [{}]}]}, "message 1: `tool_calls` is not read"),
        ({"messages": "hi"}, "`messages` is text"),
        ({"messages": []}, "`messages` is empty"),
        ({"messages": ["hi"]}, "message 1: expected an object"),
        ({"messages": [{"role": "user"}]}, "message 1: expected an object"),
        ({"messages": [{"role": "bot", "content": "x"}]}, "role 'bot' is none of system, user, assistant"),
        ({"messages": [user("x"), {"role": "system", "content": "y"}]}, "system message can only come first"),
        ({"messages": [user("x"), {"role": "assistant", "content": "y"}]}, "the last message is the assistant's"),
        ({"messages": [user(" ")]}, "message 1: empty user message"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str | dict, message: str) -> None:
    source = write(tmp_path / "p.jsonl", {"prompt": "fine"}, line)
    with pytest.raises(UserError, match=rf"p\.jsonl line 2.*{message}"):
        read_prompts(source)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent.jsonl", "no such file"),
        ("no such thing", "no such file"),
        (".", "no .parquet, .jsonl, .jsonl.gz or .csv file in this directory"),
    ],
)
def test_a_missing_source_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        read_prompts(name)


def test_empty_unknown_and_damaged_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no prompt"):
        read_prompts(write(tmp_path / "p.jsonl", "", ""))
    with pytest.raises(UserError, match="unknown kind of file"):
        read_prompts(write(tmp_path / "p.txt", "prompt"))
    with pytest.raises(UserError, match="not a readable Parquet file"):
        read_prompts(write(tmp_path / "p.parquet", "PAR1 no"))
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "other.parquet")
    with pytest.raises(
        UserError, match=r"none of prompt, messages, conversations, .*, chosen, rejected among its columns \['text'\]"
    ):
        read_prompts(str(tmp_path / "other.parquet"))


def test_ten_thousand_lines_are_checked_while_a_user_waits(tmp_path: Path) -> None:
    source = write(
        tmp_path / "p.jsonl", *({"prompt": f"question {i}, and some more words " * 5} for i in range(10_000))
    )
    assert len(read_prompts(source).conversations) == 10_000
    assert processor_time.of_call(lambda: read_prompts(source)) < 0.3
