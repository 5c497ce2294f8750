"""Read prompts from a file, a directory or a Hugging Face data set, and say which line is wrong.

A record holds ``prompt`` (text, or a list of messages) or ``messages``; of a preference record without either, the
messages in front of the answers are the prompt.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn

from nemo_sspo.artifacts.records import has_surrogates, json_kind, read_records, without_surrogates
from nemo_sspo.errors import UserError

ROLES = ("system", "user", "assistant")
COLUMNS = ("prompt", "messages", "chosen", "rejected")

Message = dict[str, str]
Key = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Conversation:
    """A prompt: messages ending with the user's, and the line (1-based) it came from."""

    messages: tuple[Message, ...]
    line: int

    @property
    def key(self) -> Key:
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


def read_prompts(
    source: str, *, duplicates: Literal["error", "drop"] = "error", setting: str = "prompts"
) -> PromptRead:
    """Read every prompt of a file or of a data set ``owner/name`` or ``owner/name:split``, named by `setting`.

    Raises:
        UserError: there is no such source, it holds no prompt, or a line cannot be read; file and line are named.
    """
    records = read_records(source, COLUMNS, setting=setting)
    return collect(
        source,
        (conversation_of(f"{source} line {line}", record, line, repaired) for line, record, repaired in records),
        duplicates,
    )


def collect(
    source: str, found: Iterable[tuple[Conversation, bool]], duplicates: Literal["error", "drop"]
) -> PromptRead:
    """The conversations of a source, each once; `found` says of each whether it was repaired."""
    read = PromptRead(source)
    first_line: dict[Key, int] = {}
    for conversation, repaired in found:
        if (first := first_line.setdefault(conversation.key, conversation.line)) != conversation.line:
            if duplicates == "error":
                raise UserError(
                    f"{read.where(conversation)}: the same prompt as line {first}; remove it, or set "
                    "data.duplicate_prompts=drop to keep the first of each"
                )
            read.duplicates += 1
            continue
        read.repaired += repaired
        read.conversations.append(conversation)
    if not read.conversations:
        raise UserError(f"{source}: holds no prompt; give one JSON object with `prompt` or `messages` per line")
    return read


def conversation_of(where: str, record: Any, line: int, repaired: bool = False) -> tuple[Conversation, bool]:
    """The prompt of one record, and whether it was repaired. Every message names `where` and what is wrong."""
    messages = tuple(_prompt_messages(where, record))
    if any(has_surrogates(message["content"]) for message in messages):
        messages = tuple({**message, "content": without_surrogates(message["content"])} for message in messages)
        repaired = True
    return Conversation(messages, line), repaired


def _prompt_messages(where: str, record: Any) -> Iterable[Message]:
    if not isinstance(record, dict):
        raise UserError(f"{where}: {json_kind(record)}, not a JSON object with `prompt` or `messages`")
    field_name = next((name for name in ("prompt", "messages") if name in record), "chosen")
    value = record.get(field_name)
    if field_name == "chosen":
        if not isinstance(value, list):
            _no_field(where, list(record))
        value = value[:-1]
    if isinstance(value, str) and field_name == "prompt":
        if not value.strip():
            raise UserError(f"{where}: empty prompt; remove the line or give it text")
        return [{"role": "user", "content": value}]
    if not isinstance(value, list):
        raise UserError(f"{where}: `{field_name}` is {json_kind(value)}; expected {_expected(field_name)}")
    return _messages(f"{where}: `{field_name}`", value)


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
        last = value[-1]["role"]
        raise UserError(f"{where}: the last message is the {last}'s; it must be the user's: leave the answer out")
