"""Read prompts with responses that were made elsewhere, and say which line is wrong.

A record holds a prompt as `prompts.py` reads it and either ``responses`` (a list) or ``chosen`` and ``rejected``. A
response is text, or messages that end with the assistant's, the conversation before it included or not. It is finished
unless ``finish_reasons`` (a list), or ``finish_reason_chosen`` and ``finish_reason_rejected``, say ``length`` of it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from nemo_sspo.artifacts.json_text import refuse_surrogates
from nemo_sspo.artifacts.sources.prompts import (
    NAMED,
    PROMPT_COLUMNS,
    Conversation,
    Key,
    PromptRead,
    collect,
    conversation_of,
)
from nemo_sspo.artifacts.sources.records import Record, json_kind, read_records
from nemo_sspo.errors import UserError

_SIDES = ("chosen", "rejected")
COLUMNS = (*PROMPT_COLUMNS, "responses", *_SIDES, "finish_reasons", *(f"finish_reason_{side}" for side in _SIDES))
_FINISH_REASONS = ("stop", "length")


@dataclass(frozen=True, slots=True)
class ResponseRead:
    """The responses of one source."""

    prompts: PromptRead
    responses: dict[Key, tuple[str, ...]]
    """By `Conversation.key`, in the records' order."""
    finish_reasons: dict[Key, tuple[str, ...]]
    """Of each response: ``stop``, or ``length`` where it was cut and has no end."""

    @property
    def k(self) -> int:
        """Responses per prompt."""
        return len(next(iter(self.responses.values())))


def read_responses(
    source: str, *, drop_duplicates: bool = False, names: Mapping[str, str] | None = None
) -> ResponseRead:
    """Read every record of a file, a directory or a data set.

    Args:
        drop_duplicates: keep the first of the records with the same prompt instead of refusing them.
        names: what the source calls fields that this package reads under another name.

    Raises:
        UserError: a record cannot be read, a response is empty, or the number of responses varies; the line is named.
    """
    answers: dict[str, tuple[str, ...]] = {}
    reasons: dict[str, tuple[str, ...]] = {}
    found = _conversations(source, answers, reasons, names)
    prompts = collect(source, found, "drop" if drop_duplicates else "error")
    responses, finish_reasons = (
        {item.key: values[item.where] for item in prompts.conversations} for values in (answers, reasons)
    )
    return ResponseRead(prompts, responses, finish_reasons)


def _conversations(
    source: str,
    answers: dict[str, tuple[str, ...]],
    reasons: dict[str, tuple[str, ...]],
    names: Mapping[str, str] | None,
) -> Iterator[Conversation]:
    """The prompt of every record; its responses and how they ended go under where it is."""
    for record in read_records(source, COLUMNS, setting="rollout.source", names=names):
        conversation, where = conversation_of(record), record.where
        responses = _responses(record, conversation)
        first = next(iter(answers), where)
        if len(responses) != len(answers.get(first, responses)):
            raise UserError(
                f"{where}: {len(responses)} responses, {first} has {len(answers[first])}; every prompt needs the same "
                "number"
            )
        answers[where], reasons[where] = responses, _finish_reasons(where, record.value, len(responses))
        yield conversation


def _responses(record: Record, conversation: Conversation) -> tuple[str, ...]:
    where, value = record.where, record.value
    if "responses" in value:
        values = value["responses"]
        if not isinstance(values, list) or len(values) < 2:
            raise UserError(f"{where}: {record.called('responses')} must be a list of at least 2 responses")
        names = [f"response {position}" for position in range(1, len(values) + 1)]
    elif "chosen" in value and "rejected" in value:
        values, names = [value[side] for side in _SIDES], [record.called(side) for side in _SIDES]
    else:
        fields = f"its fields {record.fields[:NAMED]}; rename those that hold them"
        raise UserError(f"{where}: neither `responses` nor `chosen` and `rejected` among {fields}")
    keys = {conversation.key}
    if "system" in value and conversation.key[0][0] == "system":
        keys.add(conversation.key[1:])  # the answers' own conversation may leave that field out
    return tuple(_text(f"{where}: {name}", value, keys) for name, value in zip(names, values, strict=True))


def _finish_reasons(where: str, record: dict[str, Any], responses: int) -> tuple[str, ...]:
    if "responses" in record:
        name, given = "finish_reasons", record.get("finish_reasons", ["stop"] * responses)
    else:
        name, given = "finish_reason_*", [record.get(f"finish_reason_{side}", "stop") for side in _SIDES]
    if not isinstance(given, list) or len(given) != responses or not all(value in _FINISH_REASONS for value in given):
        raise UserError(f"{where}: `{name}` is {given!r}; expected `stop` or `length` of each response")
    return tuple(given)


def _text(where: str, value: Any, keys: set[Key]) -> str:
    if isinstance(value, list):
        value = _last_message(where, value, keys)
    if not isinstance(value, str):
        raise UserError(f"{where} is {json_kind(value)}; expected text, or messages that end with the assistant's")
    if not value.strip():
        raise UserError(f"{where} is empty; remove the record or give it text")
    refuse_surrogates(where, value)
    return value


def _last_message(where: str, messages: list[Any], keys: set[Key]) -> Any:
    shaped = all(isinstance(message, dict) and isinstance(message.get("content"), str) for message in messages)
    if not messages or not shaped or messages[-1].get("role") != "assistant":
        raise UserError(f"{where}: expected messages with `role` and `content` that end with the assistant's")
    before = tuple((message.get("role"), message["content"]) for message in messages[:-1])
    if before and before not in list(keys):
        raise UserError(f"{where} answers another conversation than the record's prompt")
    return messages[-1]["content"]
