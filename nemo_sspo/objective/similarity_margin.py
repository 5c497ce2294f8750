"""How sure the oracle is as the two responses come to mean the same (S-SPPO Fig. 2), as running sums.

Legend: M response pairs, I bins (intervals of equal width) of similarity. The margin of a pair is |P_ij - 1/2| * 2: 0
where the oracle cannot tell, 1 where it is certain. A semantic gate multiplies it by its weight.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

CONFIDENT = 0.8
"""Margin above which a preference counts as confident."""


def margins(p: Array) -> Array:
    """|P - 1/2| * 2, in [0, 1]."""
    return 2.0 * np.abs(p - 0.5)


@dataclass
class SimilarityMargin:
    """Sums over response pairs by similarity; blocks of pairs are added one after the other."""

    bins: int
    count_I: NDArray[np.int64] = field(init=False)
    similarity_I: Array = field(init=False)
    margin_I: Array = field(init=False)
    confident_I: NDArray[np.int64] = field(init=False)
    _moments: Array = field(init=False)

    def __post_init__(self) -> None:
        self.count_I, self.confident_I = np.zeros((2, self.bins), dtype=np.int64)
        self.similarity_I, self.margin_I = np.zeros((2, self.bins))
        self._moments = np.zeros(5)

    def add(self, similarity_M: Array, margin_M: Array) -> None:
        """Add pairs; similarity 1 belongs to the last bin."""
        place = np.minimum((similarity_M * self.bins).astype(np.intp), self.bins - 1)

        def summed(weights: Array) -> Array:
            return np.bincount(place, weights=weights, minlength=self.bins).astype(np.float64)

        self.count_I += np.bincount(place, minlength=self.bins)
        self.similarity_I += summed(similarity_M)
        self.margin_I += summed(margin_M)
        self.confident_I += np.bincount(place, weights=margin_M > CONFIDENT, minlength=self.bins).astype(np.int64)
        s, m = similarity_M, margin_M
        self._moments += [s.sum(), m.sum(), s @ s, m @ m, s @ m]

    @property
    def pairs(self) -> int:
        """Pairs added so far."""
        return int(self.count_I.sum())

    def correlation(self) -> float | None:
        """Pearson correlation of similarity and margin; None where one of them does not vary."""
        s, m, ss, mm, sm = self._moments / max(self.pairs, 1)
        variance_s, variance_m = ss - s * s, mm - m * m
        if min(variance_s, variance_m) < 1e-12:
            return None
        return float((sm - s * m) / np.sqrt(variance_s * variance_m))
