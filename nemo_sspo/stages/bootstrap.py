"""Confidence intervals of a mean by resampling."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Interval(NamedTuple):
    """A mean and its confidence interval."""

    mean: float
    low: float
    high: float


_DRAWS_AT_ONCE = 1 << 22


def bootstrap_mean(values: NDArray[np.float64], *, samples: int, confidence: float, seed: int) -> Interval:
    """Percentile bootstrap of the mean of independent `values` [N] (Efron and Tibshirani, 1993, ch. 13)."""
    generator = np.random.default_rng(seed)
    rows = max(1, _DRAWS_AT_ONCE // len(values))
    means = np.concatenate(
        [
            values[generator.integers(len(values), size=(min(rows, samples - start), len(values)))].mean(axis=1)
            for start in range(0, samples, rows)
        ]
    )
    tail = (1.0 - confidence) / 2
    low, high = np.quantile(means, [tail, 1.0 - tail])
    return Interval(float(values.mean()), float(low), float(high))
