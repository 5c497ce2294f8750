"""The 500 prompts of Arena-Hard v0.1 with the answers of GPT-4-0314 and GPT-3.5-turbo-0125, and noisy copies."""

from __future__ import annotations

import json
import random
from pathlib import Path

DATA = Path(__file__).parents[2] / "shared" / "data"
MODELS = ("gpt-4-0314", "gpt-3.5-turbo-0125")
K = 5
_DROPPED_WORDS = 0.1


def prompts_with_answers(data: Path, count: int | None = None) -> list[tuple[str, tuple[str, ...]]]:
    """(prompt, its two real answers) of `count` prompts spread evenly over the set."""
    answers = [_answers(data / f"arena_hard_v0.1_answers_{model}.jsonl") for model in MODELS]
    questions = _lines(data / "arena_hard_v0.1_questions.jsonl")
    found = [
        (question["prompt"], tuple(answer[question["uid"]] for answer in answers))
        for question in questions
        if all(question["uid"] in answer for answer in answers)
    ]
    count = len(found) if count is None else min(count, len(found))
    return [found[(2 * place + 1) * len(found) // (2 * count)] for place in range(count)]


def with_noisy_copies(answers: tuple[str, ...], seed: int, k: int = K) -> tuple[str, ...]:
    """`k` responses: the real ones, and copies of them in turn without a tenth of their words."""
    draw = random.Random(seed)
    copies = [_noisy(answers[place % len(answers)], draw) for place in range(k - len(answers))]
    return (*answers, *copies)


def _noisy(text: str, draw: random.Random) -> str:
    return " ".join(word for word in text.split(" ") if draw.random() >= _DROPPED_WORDS)


def _answers(path: Path) -> dict[str, str]:
    return {record["uid"]: record["messages"][-1]["content"]["answer"] for record in _lines(path)}


def _lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
