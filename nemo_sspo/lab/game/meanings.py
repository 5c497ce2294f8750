"""Games in which responses share meanings: inside one nobody is better, and only the oracle thinks so.

True preferences depend on the meanings alone and are intransitive. A dial sets how sure the oracle is inside a meaning:
its logit there is +dial or -dial, drawn once for every pair; between meanings it tells the truth.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nemo_sspo.lab.game.games import antisymmetric
from nemo_sspo.objective.similarity import cosines, unit_rows
from nemo_sspo.objective.win_rates import win_probabilities

Array = NDArray[np.float64]

PARAPHRASES = (1, 2, 3, 4, 6, 8)
"""Responses of each meaning: K = 24, M = 6."""
_SCALE = 1.5
"""Standard deviation of true logits: half of the pairs are won with 0.73 or more."""
_SIZE, _SHARED, _SPREAD = 64, 0.7, 0.3


@dataclass(frozen=True)
class MeaningGames:
    """N drawn games; the oracle is exact between meanings."""

    meaning_K: NDArray[np.intp]
    truth_NKK: Array
    """True P, 1/2 inside a meaning."""
    logits_NKK: Array
    """The oracle's."""
    similarity_NKK: Array
    """max(0, cosine): see `similarities`."""

    @property
    def oracle_NKK(self) -> Array:
        """P as the oracle has it, by the pipeline's own estimate."""
        return win_probabilities(self.logits_NKK)

    @property
    def base_NK(self) -> Array:
        """The policy before self-play: every response as likely, so that meanings are not."""
        return np.full(self.truth_NKK.shape[:2], 1.0 / len(self.meaning_K))


def draw(count: int, dial: float, seed: int = 2026) -> MeaningGames:
    """`count` games; with another dial the same ones, and the same signs of the noise."""
    generator = np.random.default_rng(seed)
    meaning_K = np.repeat(np.arange(len(PARAPHRASES)), PARAPHRASES)
    same_KK = meaning_K[:, None] == meaning_K
    between_NMM = _SCALE * antisymmetric(generator, count, len(PARAPHRASES))
    true_NKK = between_NMM[:, meaning_K[:, None], meaning_K]
    signs_NKK = np.sign(antisymmetric(generator, count, len(meaning_K)))
    return MeaningGames(
        meaning_K=meaning_K,
        truth_NKK=win_probabilities(true_NKK),
        logits_NKK=np.where(same_KK, dial * signs_NKK, true_NKK),
        similarity_NKK=similarities(generator, count, meaning_K),
    )


def similarities(generator: np.random.Generator, count: int, meaning_K: NDArray[np.intp]) -> Array:
    """max(0, cosine) of drawn embeddings [N, K, K]: about 0.9 inside a meaning, 0 to 0.7 between two of one prompt."""
    meanings = int(meaning_K.max()) + 1
    own_NMD = unit_rows(generator.standard_normal((count, meanings, _SIZE)))
    shared_N1D = unit_rows(generator.standard_normal((count, 1, _SIZE)))
    weight_NM1 = _SHARED * generator.uniform(size=(count, meanings, 1)) ** 0.5
    centre_NMD = weight_NM1 * shared_N1D + np.sqrt(1.0 - weight_NM1**2) * own_NMD
    noise_NKD = unit_rows(generator.standard_normal((count, len(meaning_K), _SIZE)))
    return np.maximum(cosines(centre_NMD[:, meaning_K] + _SPREAD * noise_NKD), 0.0)


def meanings_left(policy_NK: Array, meaning_K: NDArray[np.intp]) -> Array:
    """exp(entropy) of the policy's meanings [N]."""
    share_NM = np.stack([policy_NK[:, meaning_K == each].sum(axis=1) for each in np.unique(meaning_K)], axis=1)
    return _perplexity(share_NM)


def responses_left(policy_NK: Array) -> Array:
    """exp(entropy) of the policy [N]: 1 where it always gives the same response."""
    return _perplexity(policy_NK)


def _perplexity(share_NX: Array) -> Array:
    return np.exp(-(share_NX * np.log(share_NX.clip(min=np.finfo(np.float64).tiny))).sum(axis=-1))
