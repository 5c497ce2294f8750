"""A task whose true preference is known: advice for a situation, where only the meaning of an advice counts.

Legend: S situations, M meanings, N prompts.

A world is drawn by its seed: which advice is good in which situation, how the starting policy answers, and which
frames and ends its judge likes. The true preference between meanings is Bradley-Terry in a utility plus a part that
goes round in a circle, so that it is not transitive; between two sentences of one meaning it is exactly 1/2.
"""

from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

from nemo_sspo.lab.language import sentences as text

Array = NDArray[np.float64]

UTILITY = 1.2
"""Standard deviation of the utility, in logits."""
CYCLE = 0.8
"""Logit by which a meaning beats the half of the meanings that follow it in the circle."""
GARBLED = -2.0
"""Utility of what is no sentence of the world, below the worst meaning's."""
HABIT = 1.8
"""Standard deviation of the starting policy's log-probabilities of meanings."""


@dataclass(frozen=True)
class Prompt:
    """A question about a person in a situation."""

    text: str
    situation: int


@dataclass(frozen=True)
class Sentence:
    """What an answer says, and how: the indices of its meaning, frame, core and end."""

    text: str
    meaning: int
    frame: int
    end: int


@dataclass(frozen=True)
class World:
    """Of one seed."""

    seed: int
    truth_SMM: Array
    """Logit of the true preference for the first of two meanings; the last meaning is what is no sentence."""
    habit_SM: Array
    """Probability with which the starting policy's teacher gives an answer of a meaning."""
    prompts: tuple[Prompt, ...]
    """All prompts, in the order in which they are handed out."""

    @classmethod
    def draw(cls, seed: int) -> "World":
        """The world of a seed."""
        rng = np.random.default_rng([seed, 1])
        situations, meanings = len(text.SITUATIONS), len(text.MEANINGS)
        utility_SM = rng.normal(0.0, UTILITY, (situations, meanings))
        utility_SM = np.hstack([utility_SM, utility_SM.min(axis=1, keepdims=True) + GARBLED])
        truth_SMM = utility_SM[:, :, None] - utility_SM[:, None, :]
        for truth_MM in truth_SMM:
            place = rng.permutation(meanings)
            behind = (place[None, :] - place[:, None]) % meanings
            truth_MM[:meanings, :meanings] += CYCLE * (np.sign(meanings / 2 - behind) * (behind > 0))
        habit_SM = np.exp(rng.normal(0.0, HABIT, (situations, meanings)))
        order = rng.permutation(len(all_prompts()))
        prompts = tuple(all_prompts()[index] for index in order)
        return cls(seed, truth_SMM, habit_SM / habit_SM.sum(axis=1, keepdims=True), prompts)

    def teach(self, count: int) -> list[tuple[str, str]]:
        """Prompts with answers of the starting policy's teacher: its habits of meaning, any way of saying it."""
        rng = np.random.default_rng([self.seed, 2])
        rows = []
        for index in rng.integers(len(self.prompts), size=count):
            prompt = self.prompts[index]
            meaning = rng.choice(len(text.MEANINGS), p=self.habit_SM[prompt.situation])
            rows.append((prompt.text, sentences_of(meaning)[rng.integers(len(sentences_of(meaning)))].text))
        return rows


@cache
def all_prompts() -> tuple[Prompt, ...]:
    """Every question that can be asked."""
    return tuple(
        Prompt(" ".join((person, situation, time, question)), index)
        for person, (index, situation), time, question in product(
            text.PEOPLE, enumerate(text.SITUATIONS), text.TIMES, text.QUESTIONS
        )
    )


@cache
def all_sentences() -> dict[str, Sentence]:
    """Every answer that means something, by its text."""
    found = {}
    for meaning, cores in enumerate(text.MEANINGS):
        for (frame, opening), core, (end, closing) in product(enumerate(text.FRAMES), cores, enumerate(text.ENDS)):
            said = " ".join(filter(None, (opening, core, closing)))
            found[said] = Sentence(said, meaning, frame, end)
    return found


@cache
def sentences_of(meaning: int) -> tuple[Sentence, ...]:
    """Every way of saying a meaning."""
    return tuple(each for each in all_sentences().values() if each.meaning == meaning)


def meaning_of(answer: str) -> int:
    """The index of what an answer means; the last one, of its own, for what is no sentence of the world."""
    sentence = all_sentences().get(answer)
    return len(text.MEANINGS) if sentence is None else sentence.meaning
