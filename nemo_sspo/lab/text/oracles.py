"""Oracles that are none of ours and need no weights: a score per text, from which a pair's logit is a difference.

They stand in for a reward model: no package was found that carries the weights of one. What they prefer says nothing
about quality; what is studied is how their certainty goes with similarity.
"""

import re
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from nemo_sspo.errors import UserError

Score = Callable[[str], float]

_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
VADER = "vaderSentiment"
"""The package of the sentiment lexicon (Hutto and Gilbert, 2014)."""


def length(text: str) -> float:
    """log(1 + words): the longer answer wins."""
    return float(np.log1p(len(text.split())))


def load_sentiment() -> Score:
    """Mean over sentences of VADER's compound sentiment, in [-1, 1]: the friendlier answer wins.

    Raises:
        UserError: the package that has the lexicon is not installed.
    """
    try:
        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
    except ModuleNotFoundError:
        raise UserError(f"the oracle `sentiment` needs {VADER}: pip install -r requirements/lab.txt") from None
    analyzer = SentimentIntensityAnalyzer()

    def score(text: str) -> float:
        sentences = [sentence for sentence in _SENTENCE.split(text) if sentence.strip()] or [""]
        return float(np.mean([analyzer.polarity_scores(sentence)["compound"] for sentence in sentences]))

    return score


def load_oracles() -> dict[str, Score]:
    """Every oracle by name."""
    return {"length": length, "sentiment": load_sentiment()}


def logits(difference_M: NDArray[np.float64], unit_M: NDArray[np.float64]) -> NDArray[np.float64]:
    """Differences of scores [M] in units of the median |difference| over `unit_M`, which then is P = 0.73 or 0.27."""
    unit = float(np.median(np.abs(unit_M)))
    return difference_M / (unit or 1.0)
