"""Prompts from files: what is read, what is repaired, and which line a message blames."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nemo_sspo.artifacts.prompt_source import read_prompts
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
    assert [c.line for c in read.conversations] == [1, 3]
    assert (read.repaired, read.duplicates) == (0, 0)


def test_system_and_earlier_turns_are_kept(tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "Be brief"}, user("a"), {"role": "assistant", "content": "b"}, user("c")]
    read = read_prompts(write(tmp_path / "p.jsonl", {"messages": turns}))
    assert list(read.conversations[0].messages) == turns


def test_parquet_equals_jsonl(tmp_path: Path) -> None:
    rows = [{"prompt": "one"}, {"prompt": "two\nlines"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "p.parquet")
    from_parquet = read_prompts(str(tmp_path / "p.parquet")).conversations
    assert from_parquet == read_prompts(write(tmp_path / "p.jsonl", *rows)).conversations


def test_byte_order_mark_is_no_part_of_the_first_line(tmp_path: Path) -> None:
    source = write(tmp_path / "p.jsonl", b"\xef\xbb\xbf" + json.dumps({"prompt": "Hi"}).encode())
    assert read_prompts(source).conversations[0].messages == (user("Hi"),)


def test_broken_bytes_and_lone_surrogates_are_replaced_and_counted(tmp_path: Path) -> None:
    source = write(
        tmp_path / "p.jsonl", b'{"prompt": "caf\xe9"}', r'{"prompt": "a\ud800b"}', r'{"prompt": "\ud83d\ude00"}'
    )
    read = read_prompts(source)
    assert [c.messages[0]["content"] for c in read.conversations] == ["caf�", "a�b", "😀"]
    assert read.repaired == 2


def test_duplicates_name_both_lines_or_are_dropped(tmp_path: Path) -> None:
    source = write(tmp_path / "p.jsonl", {"prompt": "a"}, {"prompt": "b"}, {"messages": [user("a")]})
    with pytest.raises(UserError, match=r"line 3: the same prompt as line 1.*data\.duplicate_prompts=drop"):
        read_prompts(source)
    read = read_prompts(source, duplicates="drop")
    assert ([c.line for c in read.conversations], read.duplicates) == ([1, 2], 1)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not JSON"),
        ("[1]", "a list, not a JSON object"),
        ({"turns": ["q"], "id": 3}, r"neither `prompt` nor `messages` among its fields \['id', 'turns'\]"),
        ({"prompt": "  \n"}, "empty prompt"),
        ({"prompt": 3}, "`prompt` is a number"),
        ({"prompt": None}, "`prompt` is null"),
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
        (".", "no .parquet or .jsonl file in this directory"),
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
        read_prompts(write(tmp_path / "p.csv", "prompt"))
    with pytest.raises(UserError, match="not a readable Parquet file"):
        read_prompts(write(tmp_path / "p.parquet", "PAR1 no"))
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "other.parquet")
    with pytest.raises(UserError, match=r"none of prompt, messages, chosen, rejected among its columns \['text'\]"):
        read_prompts(str(tmp_path / "other.parquet"))


def test_ten_thousand_lines_are_checked_while_a_user_waits(tmp_path: Path) -> None:
    source = write(
        tmp_path / "p.jsonl", *({"prompt": f"question {i}, and some more words " * 5} for i in range(10_000))
    )
    assert len(read_prompts(source).conversations) == 10_000
    assert processor_time.of_call(lambda: read_prompts(source)) < 0.3
