"""What is wrong with an oracle, measured on its own judgements: order, cycles, length, calibration.

Legend: N prompts, K responses, T triples, I bins (intervals) of confidence. ``logits_NKK[n, i, j]`` has response i
shown first.
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from nemo_sspo.objective.win_rates import symmetrize

Array = NDArray[np.float64]


@dataclass
class OrderBias:
    """How far a judgement depends on which response is shown first."""

    pairs: int = 0
    gap: float = 0.0
    """Sum of |l_ij + l_ji|, 0 for an oracle that is blind to order."""
    lean: float = 0.0
    """Sum of (l_ij + l_ji) / 2: positive where the place shown first is preferred."""
    flips: int = 0
    """Pairs whose winner is another one in the other order."""

    def add(self, logits_NKK: Array) -> None:
        """Add every pair i < j of some prompts."""
        i, j = np.triu_indices(logits_NKK.shape[-1], k=1)
        forward, backward = logits_NKK[:, i, j], logits_NKK[:, j, i]
        self.pairs += forward.size
        self.gap += float(np.abs(forward + backward).sum())
        self.lean += float((forward + backward).sum()) / 2
        self.flips += int((forward * backward > 0).sum())


@dataclass
class Intransitivity:
    """Triples on which the oracle goes in a circle, both orders combined."""

    triples: int = 0
    cycles: int = 0

    def add(self, logits_NKK: Array) -> None:
        """Add every triple i < j < k of some prompts; a tie is no cycle."""
        wins_NKK = np.sign(symmetrize(logits_NKK))
        corners = np.array(list(combinations(range(logits_NKK.shape[-1]), 3)), dtype=np.intp).reshape(-1, 3)
        i, j, k = corners.T
        turn_NT = wins_NKK[:, i, j] + wins_NKK[:, j, k] + wins_NKK[:, k, i]
        self.triples += turn_NT.size
        self.cycles += int((np.abs(turn_NT) == 3).sum())


@dataclass
class LengthBias:
    """Whether the longer response wins. Every pair counts in both directions, so that no order of responses matters."""

    pairs: int = 0
    decided: int = 0
    """Pairs of different length with P other than 1/2."""
    longer_wins: int = 0
    _products: float = 0.0
    _preference_squares: float = 0.0
    _length_squares: float = 0.0

    def add(self, p_NKK: Array, lengths_NK: NDArray[np.int64]) -> None:
        """Add every pair of some prompts: their win probabilities and the responses' lengths in tokens."""
        i, j = np.triu_indices(p_NKK.shape[-1], k=1)
        preference = ((p_NKK[:, i, j] - p_NKK[:, j, i]) / 2).ravel()
        longer = (lengths_NK[:, i] - lengths_NK[:, j]).astype(np.float64).ravel()
        self.pairs += preference.size
        agreement = np.sign(preference) * np.sign(longer)
        self.decided += int((agreement != 0).sum())
        self.longer_wins += int((agreement > 0).sum())
        self._products += float(preference @ longer)
        self._preference_squares += float(preference @ preference)
        self._length_squares += float(longer @ longer)

    def correlation(self) -> float | None:
        """Correlation of P_ij - 1/2 with the difference in length; None where one of them is always 0."""
        scale = np.sqrt(self._preference_squares * self._length_squares)
        return float(self._products / scale) if scale > 0 else None


@dataclass(frozen=True)
class Reliability:
    """Stated confidence against truth on labelled pairs, by bins of confidence from 1/2 to 1 (Guo et al., 2017)."""

    count_I: NDArray[np.int64]
    confidence_I: Array
    """Mean probability of the response that the oracle prefers; NaN in an empty bin."""
    accuracy_I: Array
    """Mean label in favour of that response; NaN in an empty bin."""

    @property
    def expected_error(self) -> float:
        """Expected calibration error: the bins' |confidence - accuracy|, weighted by their counts."""
        filled = self.count_I > 0
        gaps = np.abs(self.confidence_I - self.accuracy_I)[filled]
        return float(gaps @ self.count_I[filled] / self.count_I.sum())


def reliability(p: Array, label: Array, bins: int) -> Reliability:
    """Bin the pairs by confidence. `p` and `label` in [0, 1] are P(first is better), stated and true."""
    turned = p < 0.5
    confidence, accuracy = np.where(turned, 1 - p, p), np.where(turned, 1 - label, label)
    place = np.minimum(((confidence - 0.5) * 2 * bins).astype(np.intp), bins - 1)
    count_I = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        means = [np.bincount(place, weights=values, minlength=bins) / count_I for values in (confidence, accuracy)]
    return Reliability(count_I, *means)
