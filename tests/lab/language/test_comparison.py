"""The study's statistics: exact p-values in closed form, Holm's correction, verdicts."""

import numpy as np
import pytest
from scipy import stats

from nemo_sspo.lab.language.comparison import holm, paired
from nemo_sspo.lab.language.hypotheses import HYPOTHESES, Outcome, outcomes
from nemo_sspo.lab.language.results import Results, Run


def test_all_seeds_one_way_is_two_of_all_exchanges() -> None:
    found = paired({seed: 1.0 + seed for seed in range(8)}, dict.fromkeys(range(8), 0.0))
    assert found.p == 2 / 2**8
    assert found.wins == found.seeds == 8


def test_p_is_scipys() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 9))
    expected = stats.permutation_test(
        (first - second,), np.mean, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
    )
    assert paired(dict(enumerate(first)), dict(enumerate(second))).p == pytest.approx(expected.pvalue)


def test_no_difference_is_p_one() -> None:
    same = {seed: 0.5 for seed in range(6)}
    assert paired(same, same).p == 1.0


def test_only_common_seeds_are_compared() -> None:
    assert paired({1: 1.0, 2: 2.0, 3: 9.0}, {1: 0.0, 2: 1.0, 4: 0.0}).difference.mean == 1.0
    assert paired({1: 1.0}, {1: 0.0}) is None


def test_interval_is_students() -> None:
    values = {seed: value for seed, value in enumerate((0.1, 0.4, 0.2, 0.6))}
    low, high = stats.ttest_1samp(list(values.values()), 0).confidence_interval(0.95)
    found = paired(values, dict.fromkeys(values, 0.0)).difference
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


def test_holm_in_closed_form() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


@pytest.mark.parametrize(("shift", "verdict"), [(0.1, "held"), (-0.1, "contradicted"), (0.0, "not shown")])
def test_verdicts_follow_the_runs(shift: float, verdict: str) -> None:
    rng, measures = np.random.default_rng(1), {each.measure for each in HYPOTHESES}
    runs = []
    for each in HYPOTHESES[:1]:
        for seed in range(16):
            base = rng.normal(0.6, 0.02)
            for arm, worth in ((each.first, base + shift + rng.normal(0, 1e-3)), (each.second, base)):
                runs.append(Run(arm, each.dial, seed, [dict.fromkeys(measures, worth)]))
    (outcome,) = outcomes(Results({}, tuple(runs)))
    assert isinstance(outcome, Outcome)
    assert outcome.verdict == verdict
