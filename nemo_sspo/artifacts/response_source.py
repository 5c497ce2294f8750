"""Read prompts with responses that were made elsewhere, and say which line is wrong.

A record holds a prompt as `prompt_source` reads it and either ``responses`` (a list) or ``chosen`` and ``rejected``. A
response is text, or messages that end with the assistant's, the conversation before it included or not.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from nemo_sspo.artifacts.json_text import refuse_surrogates
from nemo_sspo.artifacts.prompt_source import PROMPT_COLUMNS, Conversation, Key, PromptRead, collect, conversation_of
from nemo_sspo.artifacts.records import json_kind, read_records
from nemo_sspo.errors import UserError

COLUMNS = (*PROMPT_COLUMNS, "responses", "chosen", "rejected")


@dataclass(frozen=True, slots=True)
class ResponseRead:
    """The responses of one source."""

    prompts: PromptRead
    responses: dict[Key, tuple[str, ...]]
    """By `Conversation.key`, in the records' order."""

    @property
    def k(self) -> int:
        """Responses per prompt."""
        return len(next(iter(self.responses.values())))


def read_responses(source: str, *, drop_duplicates: bool = False) -> ResponseRead:
    """Read every record of a file, a directory or a data set.

    Args:
        drop_duplicates: keep the first of the records with the same prompt instead of refusing them.

    Raises:
        UserError: a record cannot be read, a response is empty, or the number of responses varies; the line is named.
    """
    answers: dict[str, tuple[str, ...]] = {}
    found = _conversations(source, answers)
    prompts = collect(source, found, "drop" if drop_duplicates else "error")
    return ResponseRead(prompts, {item.key: answers[item.where] for item in prompts.conversations})


def _conversations(source: str, answers: dict[str, tuple[str, ...]]) -> Iterator[Conversation]:
    """The prompt of every record; its responses go to `answers` under where it is."""
    for record in read_records(source, COLUMNS, setting="rollout.source"):
        conversation, where = conversation_of(record), record.where
        responses = _responses(where, record.value, conversation)
        first = next(iter(answers), where)
        if len(responses) != len(answers.get(first, responses)):
            raise UserError(
                f"{where}: {len(responses)} responses, {first} has {len(answers[first])}; every prompt needs the same "
                "number"
            )
        answers[where] = responses
        yield conversation


def _responses(where: str, record: dict[str, Any], conversation: Conversation) -> tuple[str, ...]:
    if "responses" in record:
        values = record["responses"]
        if not isinstance(values, list) or len(values) < 2:
            raise UserError(f"{where}: `responses` must be a list of at least 2 responses")
        names = [f"response {position}" for position in range(1, len(values) + 1)]
    elif "chosen" in record and "rejected" in record:
        values, names = [record["chosen"], record["rejected"]], ["`chosen`", "`rejected`"]
    else:
        fields = f"its fields {sorted(map(str, record))}; rename those that hold them"
        raise UserError(f"{where}: neither `responses` nor `chosen` and `rejected` among {fields}")
    keys = {conversation.key}
    if "system" in record and conversation.key[0][0] == "system":
        keys.add(conversation.key[1:])  # the answers' own conversation may leave that field out
    return tuple(_text(f"{where}: {name}", value, keys) for name, value in zip(names, values, strict=True))


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
    if before and before not in keys:
        raise UserError(f"{where} answers another conversation than the record's prompt")
    return messages[-1]["content"]
