"""Confidence intervals by resampling."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from nemo_sspo.artifacts.interval import Interval

Statistic = Callable[[NDArray[np.int64]], NDArray[np.float64]]
"""Numbers of rows [S, N] to values [S]."""
_DRAWS_AT_ONCE = 1 << 22


def bootstrap_mean(values: NDArray[np.float64], *, samples: int, confidence: float, seed: int) -> Interval:
    """Percentile bootstrap of the mean of independent `values` [N] (Efron and Tibshirani, 1993, ch. 13)."""
    return bootstrap(
        lambda rows_SN: values[rows_SN].mean(axis=1), len(values), samples=samples, confidence=confidence, seed=seed
    )


def bootstrap(
    statistic: Statistic,
    count: int,
    *,
    samples: int,
    confidence: float,
    seed: int,
) -> Interval:
    """Percentile bootstrap of a statistic of N = `count` independent rows."""
    generator = np.random.default_rng(seed)
    at_once = max(1, _DRAWS_AT_ONCE // count)
    values = np.concatenate(
        [
            statistic(generator.integers(count, size=(min(at_once, samples - start), count)))
            for start in range(0, samples, at_once)
        ]
    )
    tail = (1.0 - confidence) / 2
    low, high = np.quantile(values, [tail, 1.0 - tail])
    return Interval(statistic(np.arange(count)[None]).item(), float(low), float(high))
