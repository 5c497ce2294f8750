"""Read prompts from a file, a directory or a Hugging Face data set, and say which line is wrong.

A record holds ``prompt`` (text, or a list of messages) or ``messages``; of a preference record without either, the
messages in front of the answers are the prompt. ``system`` beside them is the first message.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn

from nemo_sspo.artifacts.json_text import refuse_surrogates
from nemo_sspo.artifacts.sources.records import Record, json_kind, read_records
from nemo_sspo.errors import UserError

ROLES = ("system", "user", "assistant")
_NOT_READ = ("system_prompt", "history", "tools", "documents", "images", "chat_template_kwargs")
"""Fields that would change the prompt."""
PROMPT_COLUMNS = ("prompt", "messages", "system", *_NOT_READ)
COLUMNS = (*PROMPT_COLUMNS, "chosen", "rejected")
_MOST_MESSAGES = 10_000
_NAMED = 20
"""Fields that a message lists."""

Message = dict[str, str]
Key = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Conversation:
    """A prompt: messages ending with the user's."""

    messages: tuple[Message, ...]
    where: str
    """File and line that it came from, for messages."""

    @property
    def key(self) -> Key:
        """What makes two prompts the same."""
        return tuple((message["role"], message["content"]) for message in self.messages)


@dataclass
class PromptRead:
    """The prompts of one source."""

    source: str
    conversations: list[Conversation] = field(default_factory=list)
    duplicates: int = 0
    """Repeated prompts that were left out."""


def read_prompts(
    source: str, *, duplicates: Literal["error", "drop"] = "error", setting: str = "prompts"
) -> PromptRead:
    """Read every prompt of a file or of a data set ``owner/name`` or ``owner/name:split``, named by `setting`.

    Raises:
        UserError: there is no such source, it holds no prompt, or a line cannot be read; file and line are named.
    """
    return collect(source, map(conversation_of, read_records(source, COLUMNS, setting=setting)), duplicates)


def collect(source: str, found: Iterable[Conversation], duplicates: Literal["error", "drop"]) -> PromptRead:
    """The conversations of a source, each once."""
    read = PromptRead(source)
    first: dict[Key, str] = {}
    for conversation in found:
        if (where := first.setdefault(conversation.key, conversation.where)) != conversation.where:
            if duplicates == "error":
                raise UserError(
                    f"{conversation.where}: the same prompt as {where}; remove it, or set "
                    "data.duplicate_prompts=drop to keep the first of each"
                )
            read.duplicates += 1
            continue
        read.conversations.append(conversation)
    if not read.conversations:
        raise UserError(f"{source}: holds no prompt; give one JSON object with `prompt` or `messages` per line")
    return read


def conversation_of(record: Record) -> Conversation:
    """The prompt of one record. Every message names where it is and what is wrong."""
    where, value = record.where, record.value
    if not isinstance(value, dict):
        raise UserError(f"{where}: {json_kind(value)}, not a JSON object with `prompt` or `messages`")
    if unread := next((name for name in _NOT_READ if value.get(name)), None):
        advice = "name it `system`" if unread == "system_prompt" else "give `messages` that say it all, or remove it"
        raise UserError(f"{where}: the field `{unread}` is not read, and would change the prompt; {advice}")
    return Conversation(_with_system(where, value, tuple(_prompt_messages(where, value))), where)


def _with_system(where: str, record: dict[str, Any], messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The messages with the field `system` as the first; blank, it is absent."""
    system = record.get("system", "")
    if not isinstance(system, str):
        raise UserError(f"{where}: `system` is {json_kind(system)}; expected text")
    if not system.strip():
        return messages
    if messages[0]["role"] != "system":
        refuse_surrogates(f"{where}: `system`", system)
        return ({"role": "system", "content": system}, *messages)
    if messages[0]["content"] != system:
        raise UserError(f"{where}: `system` differs from the system message; remove one of them")
    return messages


def _prompt_messages(where: str, record: dict[str, Any]) -> Iterable[Message]:
    field_name = next((name for name in ("prompt", "messages") if name in record), "chosen")
    value = record.get(field_name)
    if field_name == "chosen":
        if not isinstance(value, list):
            _no_field(where, list(record))
        value = value[:-1]
    if isinstance(value, str) and field_name == "prompt":
        if not value.strip():
            raise UserError(f"{where}: empty prompt; remove the line or give it text")
        refuse_surrogates(f"{where}: `prompt`", value)
        return [{"role": "user", "content": value}]
    if not isinstance(value, list):
        raise UserError(f"{where}: `{field_name}` is {json_kind(value)}; expected {_expected(field_name)}")
    return _messages(f"{where}: `{field_name}`", value)


def _expected(field_name: str) -> str:
    return "text or a list of messages" if field_name == "prompt" else "a list of messages"


def _no_field(where: str, keys: list[str]) -> NoReturn:
    hint = "; rename the one that holds the text" if keys else ""
    named = sorted(map(str, keys))[:_NAMED]
    raise UserError(f"{where}: neither `prompt` nor `messages` among its fields {named} that hold anything{hint}")


def _messages(where: str, value: list[Any]) -> Iterator[Message]:
    if not value:
        raise UserError(f"{where} is empty; give at least one user message")
    if len(value) > _MOST_MESSAGES:
        raise UserError(f"{where}: {len(value)} messages, more than the {_MOST_MESSAGES} of any conversation")
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
        if call := next((name for name in ("tool_calls", "function_call") if message.get(name)), None):
            raise UserError(f"{here}: `{call}` is not read, and would change the prompt; remove the prompt")
        refuse_surrogates(here, message["content"])
        yield {"role": role, "content": message["content"]}
    if value[-1]["role"] != "user":
        last = value[-1]["role"]
        raise UserError(f"{where}: the last message is the {last}'s; it must be the user's: leave the answer out")
