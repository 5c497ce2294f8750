"""The preference oracle of a language game: right between meanings, sure of itself inside one.

Legend: N prompts, K responses.

Inside one meaning the true preference is 1/2. The judge gives the logit dial * (z_i - z_j) there, where z of a sentence
has unit variance: half of it is a taste for frames and ends, the same in every prompt, which a policy can learn to
please; the other half belongs to this prompt and this sentence alone, and is noise to whoever learns from it.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nemo_sspo.lab.language import sentences as text
from nemo_sspo.lab.language.world import Prompt, World, all_sentences, meaning_of

Array = NDArray[np.float64]


class Judge:
    """Scores the responses to prompts of a world."""

    def __init__(self, world: World, dial: float) -> None:
        """`dial`: how sure the judge is between sentences that mean the same, in logits; 0 judges truly."""
        self._world, self._dial = world, dial
        rng = np.random.default_rng([world.seed, 3])
        self._frame_taste, self._end_taste = rng.normal(size=len(text.FRAMES)), rng.normal(size=len(text.ENDS))

    def logits(self, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]]) -> Array:
        """Logit that the first of two responses is better, [N, K, K]; antisymmetric: it has no order bias."""
        situation_N = np.array([prompt.situation for prompt in prompts])
        meaning_NK = np.array([[meaning_of(answer) for answer in row] for row in responses])
        truth_NKK = self._world.truth_SMM[situation_N[:, None, None], meaning_NK[:, :, None], meaning_NK[:, None, :]]
        if not self._dial:
            return truth_NKK
        z_NK = np.array(
            [[self._liking(prompt, answer) for answer in row] for prompt, row in zip(prompts, responses, strict=True)]
        )
        same_NKK = meaning_NK[:, :, None] == meaning_NK[:, None, :]
        return truth_NKK + self._dial * same_NKK * (z_NK[:, :, None] - z_NK[:, None, :])

    def _liking(self, prompt: Prompt, answer: str) -> float:
        """z of a sentence: mean 0, variance 1 over worlds."""
        own = hashlib.blake2b(f"{self._world.seed}\n{prompt.text}\n{answer}".encode(), digest_size=8).digest()
        noise = np.random.default_rng(int.from_bytes(own)).normal()
        sentence = all_sentences().get(answer)
        if sentence is None:
            return float(noise)
        taste = (self._frame_taste[sentence.frame] + self._end_taste[sentence.end]) / np.sqrt(2)
        return float((taste + noise) / np.sqrt(2))
