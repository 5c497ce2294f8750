"""Read prompts from a file, a directory or a Hugging Face data set, and say which line is wrong.

A record holds ``prompt`` (text, or a list of messages), ``messages``, ``conversations`` (ShareGPT) or ``instruction``
(Alpaca), of which the first is read; of a preference record without any, the messages in front of the answers are the
prompt. ``system`` beside them is the first message.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from nemo_sspo.artifacts.json_text import refuse_surrogates
from nemo_sspo.artifacts.sources.messages import Message, before_the_answer, messages
from nemo_sspo.artifacts.sources.records import Record, json_kind, read_records
from nemo_sspo.errors import UserError

_PROMPTS = ("prompt", "messages", "conversations", "instruction")
_NOT_READ = ("system_prompt", "history", "tools", "documents", "images", "chat_template_kwargs")
"""Fields that would change the prompt."""
PROMPT_COLUMNS = (*_PROMPTS, "input", "system", *_NOT_READ)
COLUMNS = (*PROMPT_COLUMNS, "chosen", "rejected")
NAMED = 20
"""Fields that a message lists."""

Key = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Conversation:
    """A prompt: messages ending with the user's."""

    messages: tuple[Message, ...]
    where: str
    """File and line that it came from, for messages."""
    source: int = 0
    """Which of several sources that is, from 0."""

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
    sources: str | Sequence[str],
    *,
    duplicates: Literal["error", "drop"] = "error",
    setting: str = "prompts",
    names: Mapping[str, str] | None = None,
) -> PromptRead:
    """Read every prompt of a file or of a data set ``owner/name`` or ``owner/name:split``, or of several.

    Args:
        sources: one of them, or several in the order of their iterations.
        duplicates: what a prompt that is there twice, in one source or in two, comes to.
        setting: the configuration key they came from, for the messages.
        names: what the sources call fields that this package reads under another name.

    Raises:
        UserError: there is no such source, it holds no prompt, or a line cannot be read; file and line are named.
    """
    given = (sources,) if isinstance(sources, str) else tuple(sources)
    found = (
        conversation_of(record, place)
        for place, source in enumerate(given)
        for record in read_records(source, COLUMNS, setting=setting, names=names)
    )
    return collect(", ".join(given), found, duplicates)


def collect(source: str, found: Iterable[Conversation], duplicates: Literal["error", "drop"]) -> PromptRead:
    """The conversations of a source, each once."""
    read = PromptRead(source)
    first: dict[Key, str] = {}
    for conversation in found:
        if (where := first.get(conversation.key)) is not None:
            if duplicates == "error":
                raise UserError(
                    f"{conversation.where}: the same prompt as {where}; remove it, or set "
                    "data.duplicate_prompts=drop to keep the first of each"
                )
            read.duplicates += 1
            continue
        first[conversation.key] = conversation.where
        read.conversations.append(conversation)
    if not read.conversations:
        raise UserError(f"{source}: holds no prompt; give one JSON object with `prompt` or `messages` per line")
    return read


def conversation_of(record: Record, source: int = 0) -> Conversation:
    """The prompt of one record. Every message names where it is and what is wrong."""
    where, value = record.where, record.value
    if not isinstance(value, dict):
        raise UserError(f"{where}: {json_kind(value)}, not a JSON object with `prompt` or `messages`")
    if unread := next((name for name in _NOT_READ if value.get(name)), None):
        advice = "name it `system`" if unread == "system_prompt" else "give `messages` that say it all, or remove it"
        raise UserError(f"{where}: the field `{unread}` is not read, and would change the prompt; {advice}")
    return Conversation(_with_system(record, tuple(_prompt_messages(record))), where, source)


def _with_system(record: Record, prompt: tuple[Message, ...]) -> tuple[Message, ...]:
    """The messages with the field `system` as the first; blank, it is absent."""
    system, where = record.value.get("system", ""), f"{record.where}: {record.called('system')}"
    if not isinstance(system, str):
        raise UserError(f"{where} is {json_kind(system)}; expected text")
    if not system.strip():
        return prompt
    if prompt[0]["role"] != "system":
        refuse_surrogates(where, system)
        return ({"role": "system", "content": system}, *prompt)
    if prompt[0]["content"] != system:
        raise UserError(f"{where} differs from the system message; remove one of them")
    return prompt


def _prompt_messages(record: Record) -> Iterable[Message]:
    field_name = _prompt_field(record)
    value, where = record.value[field_name], f"{record.where}: {record.called(field_name)}"
    if isinstance(value, str) and field_name in ("prompt", "instruction"):
        if not value.strip():
            raise UserError(f"{record.where}: empty {field_name}; remove the line or give it text")
        refuse_surrogates(where, value)
        return [{"role": "user", "content": value + (_input(record) if field_name == "instruction" else "")}]
    if not isinstance(value, list) or field_name == "instruction":
        raise UserError(f"{where} is {json_kind(value)}; expected {_EXPECTED.get(field_name, 'a list of messages')}")
    if field_name == "chosen":
        value = value[:-1]
    if field_name == "conversations":
        value = before_the_answer(where, value)
    return messages(where, value)


_EXPECTED = {"prompt": "text or a list of messages", "instruction": "text"}


def _prompt_field(record: Record) -> str:
    """The field that holds the prompt: where the source's own name of one is told, only such a one."""
    value = record.value
    told = [name for name in _PROMPTS if name in record.names]
    if found := next((name for name in told or _PROMPTS if name in value), None):
        return found
    if not told and isinstance(value.get("chosen"), list):
        return "chosen"
    named = record.fields[:NAMED]
    if told:
        settings = " nor ".join(f"{record.called(name)} (data.columns.{name})" for name in told)
        raise UserError(f"{record.where}: no {settings} among its fields {named} that hold anything")
    hint = "; rename the one that holds the text, or name it in data.columns.prompt=..." if named else ""
    raise UserError(
        f"{record.where}: neither `prompt` nor `messages` among its fields {named} that hold anything{hint}"
    )


def _input(record: Record) -> str:
    """What stands below an instruction, with the line end before it; nothing where it is blank."""
    value, where = record.value.get("input", ""), f"{record.where}: {record.called('input')}"
    if not isinstance(value, str):
        raise UserError(f"{where} is {json_kind(value)}; expected text")
    refuse_surrogates(where, value)
    return f"\n{value}" if value.strip() else ""
