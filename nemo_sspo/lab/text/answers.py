"""The prompts of Arena-Hard v0.1 with the answers of GPT-4-0314 and GPT-3.5-turbo-0125, and copies that lack words."""

import random
from pathlib import Path
from typing import Any

from nemo_sspo.artifacts.sources.json_records import json_records
from nemo_sspo.errors import UserError

MODELS = ("gpt-4-0314", "gpt-3.5-turbo-0125")
_DROPPED_WORDS = 0.1

Answered = tuple[str, tuple[str, ...]]
"""A prompt and the answers of `MODELS`."""


def prompts_with_answers(data: Path, count: int | None = None) -> list[Answered]:
    """`count` prompts spread evenly over those that all models answered; None takes all.

    Raises:
        UserError: a file is missing, cannot be read, or has a row without what is read of it.
    """
    answers = [_answers(data / f"arena_hard_v0.1_answers_{model}.jsonl") for model in MODELS]
    found = [
        (prompt, tuple(answer[uid] for answer in answers))
        for uid, prompt in _questions(data / "arena_hard_v0.1_questions.jsonl").items()
        if all(uid in answer for answer in answers)
    ]
    if not found:
        raise UserError(f"{data}: no question of arena_hard_v0.1_questions.jsonl has an answer of every model")
    count = len(found) if count is None else min(count, len(found))
    return [found[(2 * place + 1) * len(found) // (2 * count)] for place in range(count)]


def without_some_words(text: str, draw: random.Random) -> str:
    """The text without about a tenth of its words."""
    return " ".join(word for word in text.split(" ") if draw.random() >= _DROPPED_WORDS)


def _questions(path: Path) -> dict[str, str]:
    return {_text(where, record, "uid"): _text(where, record, "prompt") for where, record in json_records(path)}


def _answers(path: Path) -> dict[str, str]:
    return {
        _text(where, record, "uid"): _text(where, record, "messages", -1, "content", "answer")
        for where, record in json_records(path)
    }


def _text(where: str, record: Any, *place: str | int) -> str:
    """The text at this place in a record."""
    value = record
    try:
        for step in place:
            value = value[step]
    except (KeyError, IndexError, TypeError):
        value = None
    if not isinstance(value, str):
        raise UserError(f"{where}: no text at {'.'.join(map(str, place))}; give Arena-Hard's files as they are")
    return value
