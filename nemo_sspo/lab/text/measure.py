"""Tables of similarity and margin, from embeddings and scores of the pairs' texts; intervals are over prompts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nemo_sspo.artifacts.interval import Interval
from nemo_sspo.config.binding import bind
from nemo_sspo.config.gates import GATES
from nemo_sspo.lab.text.oracles import logits
from nemo_sspo.lab.text.pairs import COPY, TWO_MODELS, TextPair
from nemo_sspo.objective.gates import GATE_WEIGHTS, calibrate
from nemo_sspo.objective.similarity_margin import margins
from nemo_sspo.objective.win_rates import sigmoid
from nemo_sspo.stages.evaluation.bootstrap import Statistic, bootstrap

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

CLOSE = 0.9
"""Similarity from which a pair counts as close."""
LARGE = float(np.tanh(0.5))
"""The margin of P = 0.73, the median of pairs of real answers: half of them are larger."""


@dataclass(frozen=True)
class SimilarityRow:
    """How alike the pairs of a kind are to the encoder."""

    kind: str
    long_text: str
    pairs: int
    similarity: Interval
    close: Interval
    """Share of `CLOSE` pairs."""


@dataclass(frozen=True)
class MarginRow:
    """What a gate leaves of an oracle's margins."""

    oracle: str
    long_text: str
    kind: str
    close: bool
    pairs: int
    gate: str
    margin: Interval
    large: Interval
    """Share of pairs with a margin above `LARGE`."""


@dataclass(frozen=True)
class CorrelationRow:
    """Whether the oracle is less sure of answers that are alike."""

    oracle: str
    long_text: str
    correlation: Interval
    """Pearson's, of similarity and ungated margin, over the pairs of two models."""


class PairTable:
    """M pairs with their similarity [M], max(0, cosine), by way of reading long texts."""

    def __init__(self, pairs: Sequence[TextPair], similarity: Mapping[str, Array], samples: int, seed: int) -> None:
        self._kind_M = np.array([pair.kind for pair in pairs])
        self._prompt_M = np.array([pair.prompt for pair in pairs])
        self._similarity = similarity
        self._samples, self._seed = samples, seed

    def similarity_rows(self) -> list[SimilarityRow]:
        """By kind and way of reading long texts."""
        return [
            SimilarityRow(
                kind,
                long_text,
                int((self._kind_M == kind).sum()),
                self._mean(similarity_M, self._kind_M == kind),
                self._mean(similarity_M >= CLOSE, self._kind_M == kind),
            )
            for kind in dict.fromkeys(self._kind_M.tolist())
            for long_text, similarity_M in self._similarity.items()
        ]

    def margin_rows(self, oracle: str, difference_M: Array) -> list[MarginRow]:
        """Of pairs with one meaning and of real pairs, close and not, under every gate at its defaults."""
        p_M = self._win_probabilities(difference_M)
        rows = []
        for long_text, similarity_M in self._similarity.items():
            for kind in (TWO_MODELS, COPY):
                for close in (True, False):
                    these = (self._kind_M == kind) & ((similarity_M >= CLOSE) == close)
                    for gate in GATES if these.any() else ():
                        margin_M = margins(calibrate(p_M, bind(gate, GATE_WEIGHTS)(similarity_M)))
                        rows.append(
                            MarginRow(
                                oracle,
                                long_text,
                                kind,
                                close,
                                int(these.sum()),
                                gate.kind,
                                self._mean(margin_M, these),
                                self._mean(margin_M > LARGE, these),
                            )
                        )
        return rows

    def correlation_rows(self, oracle: str, difference_M: Array) -> list[CorrelationRow]:
        """One for each way of reading long texts."""
        these = self._kind_M == TWO_MODELS  # one pair of every prompt
        margin_M = margins(self._win_probabilities(difference_M))[these]
        return [
            CorrelationRow(oracle, long_text, self._correlation(similarity_M[these], margin_M))
            for long_text, similarity_M in self._similarity.items()
        ]

    def _correlation(self, x_P: Array, y_P: Array) -> Interval:
        return self._interval(lambda rows_SP: _correlations(x_P[rows_SP], y_P[rows_SP]), len(x_P))

    def _win_probabilities(self, difference_M: Array) -> Array:
        return sigmoid(logits(difference_M, difference_M[self._kind_M == TWO_MODELS]))

    def _mean(self, values_M: Array | Mask, these: Mask) -> Interval:
        """Mean over these pairs; whole prompts are resampled, since pairs of one prompt are alike."""
        prompts, place = np.unique(self._prompt_M[these], return_inverse=True)
        total_P = np.bincount(place, values_M[these].astype(np.float64), len(prompts))
        count_P = np.bincount(place, minlength=len(prompts))
        return self._interval(lambda rows_SP: total_P[rows_SP].sum(axis=1) / count_P[rows_SP].sum(axis=1), len(prompts))

    def _interval(self, statistic: Statistic, count: int) -> Interval:
        return bootstrap(statistic, count, samples=self._samples, confidence=0.95, seed=self._seed)


def _correlations(x_SM: Array, y_SM: Array) -> Array:
    x_SM, y_SM = (each - each.mean(axis=1, keepdims=True) for each in (x_SM, y_SM))
    scale_S = np.sqrt((x_SM**2).sum(axis=1) * (y_SM**2).sum(axis=1))
    return (x_SM * y_SM).sum(axis=1) / np.maximum(scale_S, np.finfo(np.float64).tiny)
