"""Two arms against each other, seed by seed: paired differences, an exact test, and a correction for many of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from nemo_sspo.artifacts.interval import Interval

LEVEL = 0.05
"""Probability of calling any difference real where none is (family-wise)."""
_EXACT_UP_TO = 20
"""Seeds whose sign changes are all tried: a million."""


@dataclass(frozen=True)
class Paired:
    """The difference of two arms over the seeds that both have."""

    difference: Interval
    """Mean with its 95 % interval of Student's t."""
    seeds: int
    wins: int
    """Seeds in which the first arm's value is the greater."""
    p: float
    """Two-sided, of the test that exchanges the arms within seeds in every possible way."""


def paired(first: dict[int, float], second: dict[int, float]) -> Paired | None:
    """Compare by seed; None with fewer than two seeds in common.

    Raises:
        ValueError: more seeds than an exact test can try.
    """
    seeds = sorted(first.keys() & second.keys())
    if len(seeds) < 2:
        return None
    if len(seeds) > _EXACT_UP_TO:
        raise ValueError(f"{len(seeds)} seeds: an exact test tries at most 2^{_EXACT_UP_TO} exchanges")
    difference = np.array([first[seed] - second[seed] for seed in seeds])
    mean, error = difference.mean(), difference.std(ddof=1) / np.sqrt(len(seeds))
    reach = stats.t.ppf(0.5 + 0.5 * (1 - LEVEL), len(seeds) - 1) * error
    interval = Interval(float(mean), float(mean - reach), float(mean + reach))
    return Paired(interval, len(seeds), int((difference > 0).sum()), _exact_p(difference))


def _exact_p(difference: np.ndarray) -> float:
    """Share of all sign changes whose mean is at least as far from 0."""
    count = len(difference)
    signs = 1 - 2 * ((np.arange(2**count)[:, None] >> np.arange(count)) & 1)
    sums = np.abs(signs @ difference)
    return float((sums >= abs(difference.sum()) * (1 - 1e-12)).mean())


def holm(p: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values (1979): with them any number of comparisons keeps one family-wise level."""
    order = np.argsort(p)
    raised = np.asarray(p)[order] * (len(p) - np.arange(len(p)))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(raised), 1.0)
    return adjusted.tolist()
