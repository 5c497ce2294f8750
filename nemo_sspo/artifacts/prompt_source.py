"""Read prompts from a JSONL or Parquet file or a Hugging Face data set, and say which line is wrong.

A record holds ``prompt`` (text, or a list of messages) or ``messages``. Importing this module is cheap, so that the
command line can check every line before anything heavy starts.
"""

import codecs
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn

from nemo_sspo.errors import UserError

ROLES = ("system", "user", "assistant")
JSON_SUFFIXES = {".jsonl", ".ndjson", ".json"}
DATASET_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(:[\w.\[\]%-]+)?")
_SURROGATE = re.compile("[\ud800-\udfff]")
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

Message = dict[str, str]


@dataclass(frozen=True, slots=True)
class Conversation:
    """A prompt: messages ending with the user's, and the line (1-based) it came from."""

    messages: tuple[Message, ...]
    line: int

    @property
    def key(self) -> tuple[tuple[str, str], ...]:
        """What makes two prompts the same."""
        return tuple((message["role"], message["content"]) for message in self.messages)


@dataclass
class PromptRead:
    """The prompts of one source, and what was repaired on the way."""

    source: str
    conversations: list[Conversation] = field(default_factory=list)
    repaired: int = 0
    """Prompts with bytes that are not UTF-8 or with lone surrogates, replaced by U+FFFD."""
    duplicates: int = 0
    """Repeated prompts that were left out."""

    def where(self, conversation: Conversation) -> str:
        """File and line of a conversation, for messages."""
        return f"{self.source} line {conversation.line}"


def read_prompts(source: str, *, duplicates: Literal["error", "drop"] = "error") -> PromptRead:
    """Read every prompt of a file or of a data set ``owner/name`` or ``owner/name:split``.

    Raises:
        UserError: there is no such source, it holds no prompt, or a line cannot be read; file and line are named.
    """
    read = PromptRead(source)
    first_line: dict[tuple[tuple[str, str], ...], int] = {}
    for line, record, repaired in _records(source):
        conversation = _conversation(f"{source} line {line}", record, line)
        if any(_SURROGATE.search(message["content"]) for message in conversation.messages):
            conversation, repaired = _without_surrogates(conversation), True
        key = conversation.key
        if key in first_line:
            if duplicates == "error":
                raise UserError(
                    f"{source} line {line}: the same prompt as line {first_line[key]}; remove it, or set "
                    "data.duplicate_prompts=drop to keep the first of each"
                )
            read.duplicates += 1
            continue
        first_line[key] = line
        read.repaired += repaired
        read.conversations.append(conversation)
    if not read.conversations:
        raise UserError(f"{source}: holds no prompt; give one JSON object with `prompt` or `messages` per line")
    return read


def _records(source: str) -> Iterator[tuple[int, Any, bool]]:
    """Yield (line, record, whether bytes were replaced)."""
    path = Path(source)
    if path.is_dir():
        raise UserError(f"{source}: is a directory; give a JSONL or Parquet file, or a data set id")
    if path.is_file():
        if path.suffix == ".parquet":
            return _parquet_records(path)
        if path.suffix in JSON_SUFFIXES:
            return _json_records(path)
        raise UserError(f"{source}: unknown kind of file; give .jsonl or .parquet")
    known_suffix = path.suffix == ".parquet" or path.suffix in JSON_SUFFIXES
    if known_suffix or not DATASET_ID.fullmatch(source):
        raise UserError(f"{source}: no such file; check prompts=... (or give a data set id like owner/name)")
    return _dataset_records(source)


def _json_records(path: Path) -> Iterator[tuple[int, Any, bool]]:
    with path.open("rb") as file:
        for line, raw in enumerate(file, start=1):
            raw = raw.removeprefix(codecs.BOM_UTF8) if line == 1 else raw
            if not raw.strip():
                continue
            text, replaced = _decode(raw)
            try:
                record = json.loads(text)
            except json.JSONDecodeError as error:
                raise UserError(
                    f"{path} line {line}: not JSON ({error.msg} at column {error.colno}); "
                    "every line must be one JSON object"
                ) from None
            yield line, record, replaced


def _decode(raw: bytes) -> tuple[str, bool]:
    try:
        return raw.decode(), False
    except UnicodeDecodeError:
        return raw.decode(errors="replace"), True


def _parquet_records(path: Path) -> Iterator[tuple[int, Any, bool]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        names = file.schema_arrow.names
        columns = [name for name in ("prompt", "messages") if name in names]
        batches: Iterable[pa.RecordBatch] = file.iter_batches(columns=columns)
        rows = (row for batch in batches for row in batch.to_pylist())
        if not columns:
            _no_field(str(path), names)
        for line, row in enumerate(rows, start=1):
            yield line, {name: value for name, value in row.items() if value is not None}, False
    except (OSError, pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a readable Parquet file ({error})") from None


def _dataset_records(source: str) -> Iterator[tuple[int, Any, bool]]:
    try:
        from datasets import load_dataset
    except ImportError:
        raise UserError(
            f"{source}: no such file, and reading it as a Hugging Face data set needs `pip install datasets`"
        ) from None
    name, _, split = source.partition(":")
    try:
        dataset = load_dataset(name, split=split or "train")
    except Exception as error:  # a hub client raises of its own, its HTTP library's and pyarrow's kinds
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{source}: cannot load this data set ({reason})") from None
    for line, row in enumerate(dataset, start=1):
        yield line, row, False


def _conversation(where: str, record: Any, line: int) -> Conversation:
    """Check one record; every message names `where` and what is wrong."""
    if not isinstance(record, dict):
        raise UserError(f"{where}: a {type(record).__name__}, not a JSON object with `prompt` or `messages`")
    if "prompt" in record:
        field_name = "prompt"
    elif "messages" in record:
        field_name = "messages"
    else:
        _no_field(where, list(record))
    value = record[field_name]
    if isinstance(value, str) and field_name == "prompt":
        if not value.strip():
            raise UserError(f"{where}: empty prompt; remove the line or give it text")
        return Conversation(({"role": "user", "content": value},), line)
    if not isinstance(value, list):
        raise UserError(f"{where}: `{field_name}` is a {type(value).__name__}; expected {_expected(field_name)}")
    return Conversation(tuple(_messages(f"{where}: `{field_name}`", value)), line)


def _expected(field_name: str) -> str:
    return "text or a list of messages" if field_name == "prompt" else "a list of messages"


def _no_field(where: str, keys: list[str]) -> NoReturn:
    hint = "; rename the one that holds the text" if keys else ""
    raise UserError(f"{where}: neither `prompt` nor `messages` among its fields {sorted(map(str, keys))}{hint}")


def _messages(where: str, value: list[Any]) -> Iterator[Message]:
    if not value:
        raise UserError(f"{where} is empty; give at least one user message")
    for position, message in enumerate(value, start=1):
        here = f"{where}, message {position}"
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            raise UserError(f"{here}: expected an object with `role` and `content`, both text")
        role = message.get("role")
        if role not in ROLES:
            raise UserError(f"{here}: role {role!r} is none of {', '.join(ROLES)}")
        if role == "system" and position > 1:
            raise UserError(f"{here}: a system message can only come first")
        if role == "user" and not message["content"].strip():
            raise UserError(f"{here}: empty user message; remove the prompt or give it text")
        yield {"role": role, "content": message["content"]}
    if value[-1]["role"] != "user":
        raise UserError(f"{where}: the last message is the {value[-1]['role']}'s; it must be the user's")


def _without_surrogates(conversation: Conversation) -> Conversation:
    """Lone surrogates have no UTF-8 form; JSON escapes can smuggle them in."""
    messages = tuple(
        {"role": m["role"], "content": _SURROGATE.sub(_REPLACEMENT, m["content"])} for m in conversation.messages
    )
    return Conversation(messages, conversation.line)
