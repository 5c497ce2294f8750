"""The percentile bootstrap against what theory says of a mean."""

import numpy as np
import pytest

from nemo_sspo.artifacts.interval import Interval
from nemo_sspo.stages.evaluation.bootstrap import bootstrap_mean


def test_width_is_that_of_the_normal_approximation() -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, size=4000)
    interval = bootstrap_mean(values, samples=8000, confidence=0.95, seed=1)
    standard_error = values.std() / np.sqrt(len(values))
    assert interval.mean == pytest.approx(values.mean(), abs=1e-12)
    assert interval.low == pytest.approx(values.mean() - 1.96 * standard_error, abs=0.1 * standard_error)
    assert interval.high == pytest.approx(values.mean() + 1.96 * standard_error, abs=0.1 * standard_error)


def test_coverage_of_a_skewed_distribution() -> None:
    """Of 300 samples from Beta(2, 1), whose mean is 2/3, the 90 % interval holds the truth about 270 times."""
    generator = np.random.default_rng(2)
    covered = 0
    for trial in range(300):
        interval = bootstrap_mean(generator.beta(2, 1, size=100), samples=500, confidence=0.9, seed=trial)
        covered += interval.low <= 2 / 3 <= interval.high
    assert 250 <= covered <= 288  # 270 +- 4 standard deviations, less a little for the small sample


def test_a_constant_has_no_width_and_seeds_repeat() -> None:
    assert bootstrap_mean(np.full(10, 0.25), samples=50, confidence=0.95, seed=0) == Interval(0.25, 0.25, 0.25)
    values = np.arange(30.0)
    first, again, other = (bootstrap_mean(values, samples=99, confidence=0.9, seed=seed) for seed in (4, 4, 5))
    assert first == again != other
