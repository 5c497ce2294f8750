"""Five responses to every prompt of Arena-Hard v0.1: two real answers, and copies that lack words."""

from __future__ import annotations

import random
from pathlib import Path

from nemo_sspo.lab.text.answers import prompts_with_answers, without_some_words

__all__ = ["DATA", "K", "prompts_with_answers", "with_noisy_copies"]

DATA = Path(__file__).parents[2] / "shared" / "data"
K = 5


def with_noisy_copies(answers: tuple[str, ...], seed: int, k: int = K) -> tuple[str, ...]:
    """`k` responses: the real ones, and copies of them in turn without a tenth of their words."""
    draw = random.Random(seed)
    copies = [without_some_words(answers[place % len(answers)], draw) for place in range(k - len(answers))]
    return (*answers, *copies)
