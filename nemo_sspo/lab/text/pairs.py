"""Pairs of texts whose likeness is known from how they were made."""

import random
from collections.abc import Sequence
from typing import NamedTuple

from nemo_sspo.lab.text.answers import Answered, without_some_words

TWO_MODELS, COPY, BEGINNING, ENDING = "two models", "words missing", "same beginning", "same ending"


MADE_EVERY = 5
"""Prompts to one of which pairs are made: they differ less among each other than real ones, and encoding takes long."""


class TextPair(NamedTuple):
    """Two texts of one prompt."""

    kind: str
    prompt: int
    first: str
    second: str


def text_pairs(prompts: Sequence[Answered], seed: int) -> list[TextPair]:
    """The real pair of every prompt, and of every fifth prompt three kinds that are made of it.

    `TWO_MODELS`: both models' answers. `COPY`: each answer and itself without a tenth of its words. `BEGINNING`,
    `ENDING`: the first model's answer, and that half of it with the other half of its answer to the next prompt.
    """
    found, draw = [], random.Random(seed)
    for number, (_, answers) in enumerate(prompts):
        found.append(TextPair(TWO_MODELS, number, *answers[:2]))
        if number % MADE_EVERY:
            continue
        found += [TextPair(COPY, number, answer, without_some_words(answer, draw)) for answer in answers[:2]]
        (begins, ends), (others_begin, others_end) = map(
            _halves, (answers[0], prompts[(number + 1) % len(prompts)][1][0])
        )
        found.append(TextPair(BEGINNING, number, answers[0], f"{begins} {others_end}"))
        found.append(TextPair(ENDING, number, answers[0], f"{others_begin} {ends}"))
    return found


def _halves(text: str) -> tuple[str, str]:
    words = text.split(" ")
    return " ".join(words[: len(words) // 2]), " ".join(words[len(words) // 2 :])
