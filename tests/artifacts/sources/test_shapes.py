"""How rows hold their prompt: ShareGPT's conversations, Alpaca's instructions, and fields under names of their own."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nemo_sspo.artifacts.sources.labelled import read_labelled
from nemo_sspo.artifacts.sources.prompts import read_prompts
from nemo_sspo.artifacts.sources.responses import read_responses
from nemo_sspo.errors import UserError


def write(path: Path, *rows: object) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def said(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


def spoke(speaker: str, text: str) -> dict[str, str]:
    return {"from": speaker, "value": text}


def prompt_of(tmp_path: Path, row: dict, names: dict[str, str] | None = None) -> list[dict[str, str]]:
    (conversation,) = read_prompts(write(tmp_path / "p.jsonl", row), names=names).conversations
    return list(conversation.messages)


SHAREGPT = [spoke("human", "a"), spoke("gpt", "b"), spoke("human", "c"), spoke("gpt", "d")]
TURNS = [said("user", "a"), said("assistant", "b"), said("user", "c")]


@pytest.mark.parametrize(
    ("row", "messages"),
    [
        ({"conversations": SHAREGPT}, TURNS),
        ({"conversations": SHAREGPT[:3]}, TURNS),  # without an answer
        ({"conversations": [*SHAREGPT, spoke("gpt", "e")]}, TURNS),
        ({"conversations": [*TURNS, said("assistant", "d")]}, TURNS),
        ({"conversations": SHAREGPT[:1], "system": "Be brief"}, [said("system", "Be brief"), said("user", "a")]),
        ({"conversations": [spoke("system", "s"), *SHAREGPT[:2]]}, [said("system", "s"), said("user", "a")]),
        ({"conversations": [spoke("User", "a"), spoke("Assistant", "b")]}, [said("user", "a")]),
        ({"conversations": [spoke("human", "a"), spoke("gpt", "")]}, [said("user", "a")]),
        ({"instruction": "Say hi.", "input": "", "output": "Hi"}, [said("user", "Say hi.")]),
        ({"instruction": "Say hi."}, [said("user", "Say hi.")]),
        ({"instruction": "Translate:", "input": "Hallo", "output": "Hi"}, [said("user", "Translate:\nHallo")]),
        ({"instruction": "i", "system": "s"}, [said("system", "s"), said("user", "i")]),
        ({"prompt": "p", "instruction": "i", "conversations": SHAREGPT}, [said("user", "p")]),
    ],
)
def test_the_prompt_of_a_row(tmp_path: Path, row: dict, messages: list[dict[str, str]]) -> None:
    assert prompt_of(tmp_path, row) == messages
    if all(isinstance(value, str) for value in row.values()):
        return
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "p.parquet")
    assert list(read_prompts(str(tmp_path / "p.parquet")).conversations[0].messages) == messages


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"conversations": [spoke("gpt", "a")]}, "`conversations`: no message of the user's"),
        ({"conversations": []}, "`conversations`: no message of the user's"),
        ({"conversations": "a"}, "`conversations` is text; expected a list of messages"),
        ({"conversations": ["a", *SHAREGPT]}, "`conversations`, message 1: expected an object"),
        ({"conversations": [spoke("function_call", "{}"), *SHAREGPT]}, "message 1: role 'function_call' is none of"),
        ({"conversations": [spoke("human", " "), *SHAREGPT]}, "message 1: empty user message"),
        ({"conversations": [{"from": "human", "text": "a"}]}, "message 1: expected an object"),
        ({"conversations": SHAREGPT, "tools": "[{}]"}, "`tools` is not read, and would change the prompt"),
        ({"instruction": " "}, "empty instruction"),
        ({"instruction": ["a"]}, "`instruction` is a list; expected text"),
        ({"instruction": "a", "input": 3}, "`input` is a number; expected text"),
        ({"instruction": "a", "history": [["b", "c"]]}, "`history` is not read"),
        ({"instruction": "a", "input": "\ud800"}, "`input` holds the lone surrogate"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(tmp_path: Path, row: dict, message: str) -> None:
    with pytest.raises(UserError, match=rf"p\.jsonl line 2.*{message}"):
        read_prompts(write(tmp_path / "p.jsonl", {"prompt": "fine"}, row))


def test_equal_prompts_in_two_shapes_are_one(tmp_path: Path) -> None:
    source = write(tmp_path / "p.jsonl", {"prompt": "a"}, {"instruction": "a"}, {"conversations": SHAREGPT[:2]})
    read = read_prompts(source, duplicates="drop")
    assert (len(read.conversations), read.duplicates) == (1, 2)


@pytest.mark.parametrize(
    ("row", "names", "messages"),
    [
        ({"question": "q", "prompt": "another"}, {"prompt": "question"}, [said("user", "q")]),
        (
            {"sys": "s", "q": "q", "system": "x"},
            {"prompt": "q", "system": "sys"},
            [said("system", "s"), said("user", "q")],
        ),
        ({"chat": TURNS}, {"messages": "chat"}, TURNS),
        ({"messages": [*TURNS, said("assistant", "d")]}, {"conversations": "messages"}, TURNS),
        ({"task": "t", "context": "c"}, {"instruction": "task", "input": "context"}, [said("user", "t\nc")]),
        ({"messages": "m", "prompt": TURNS}, {"prompt": "messages", "messages": "prompt"}, [said("user", "m")]),
        ({"prompt": "p", "system_prompt": "s"}, {"system": "system_prompt"}, [said("system", "s"), said("user", "p")]),
    ],
)
def test_fields_are_read_by_the_names_that_are_told(tmp_path: Path, row: dict, names: dict, messages: list) -> None:
    assert prompt_of(tmp_path, row, names) == messages
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "p.parquet")
    read = read_prompts(str(tmp_path / "p.parquet"), names=names)
    assert list(read.conversations[0].messages) == messages


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": " "}, "line 2: empty prompt"),
        ({"question": 3}, "line 2: `question` is a number"),
        ({"prompt": "a"}, r"line 2: no `question` \(data\.columns\.prompt\) among its fields \[\] that hold anything"),
        ({"question": "a", "sys": [1]}, "line 2: `sys` is a list; expected text"),
    ],
)
def test_a_message_names_the_field_as_the_file_does(tmp_path: Path, row: dict, message: str) -> None:
    source = write(tmp_path / "p.jsonl", {"question": "q", "sys": "s"}, row)
    with pytest.raises(UserError, match=message):
        read_prompts(source, names={"prompt": "question", "system": "sys"})


def test_a_name_that_no_record_has_is_a_mistake(tmp_path: Path) -> None:
    """Else every prompt would be trained without its system message."""
    source = write(tmp_path / "p.jsonl", {"prompt": "a", "system": "s"}, {"prompt": "b"})
    with pytest.raises(UserError, match=r"no record has a field 'sys_text', which data\.columns\.system names"):
        read_prompts(source, names={"system": "sys_text"})
    with pytest.raises(UserError, match=r"p\.parquet: none of question, messages, .* among its columns \['text'\]"):
        pq.write_table(pa.table({"text": ["a"]}), tmp_path / "p.parquet")
        read_prompts(str(tmp_path / "p.parquet"), names={"prompt": "question"})


def test_responses_and_labels_are_read_by_the_names_that_are_told(tmp_path: Path) -> None:
    names = {"prompt": "question", "chosen": "winner", "rejected": "loser"}
    source = write(tmp_path / "r.jsonl", {"question": "q", "winner": "a", "loser": "b"})
    assert list(read_responses(source, names=names).responses.values()) == [("a", "b")]
    with pytest.raises(UserError, match="line 1: `loser` is empty"):
        read_responses(write(tmp_path / "e.jsonl", {"question": "q", "winner": "a", "loser": " "}), names=names)
    row = {"question": "q", "response_a": "a", "response_b": "b", "label": 1}
    (pair,) = read_labelled(write(tmp_path / "l.jsonl", row), names)
    assert (pair.conversation.messages, pair.label) == ((said("user", "q"),), 1.0)


def test_of_several_sources_each_prompt_tells_its_own_and_none_is_in_two(tmp_path: Path) -> None:
    sources = [write(tmp_path / f"{name}.jsonl", {"prompt": name}, {"prompt": f"{name} too"}) for name in "ab"]
    read = read_prompts(sources)
    assert [(each.messages[0]["content"], each.source) for each in read.conversations] == [
        *(("a", 0), ("a too", 0)),
        *(("b", 1), ("b too", 1)),
    ]
    with pytest.raises(UserError, match=r"a\.jsonl line 1: the same prompt as .*a\.jsonl line 1; remove it"):
        read_prompts([sources[0], sources[0]])
    assert read_prompts([*sources, sources[0]], duplicates="drop").duplicates == 2
