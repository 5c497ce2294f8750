"""Fewer responses than are sampled may estimate the win rates: SPPO's ablation of K."""

import numpy as np
import pytest

from nemo_sspo.objective.pair_selection import estimating
from nemo_sspo.objective.targets import build_targets
from nemo_sspo.objective.win_rates import sigmoid

LOGITS = np.random.default_rng(0).normal(size=(7, 5, 5))
SIMILARITY = np.full((7, 5, 5), 0.25)


def targets(count: int | None, **changes):
    given = {"symmetrization": "none", "gate_weight": lambda s: 1 - s, "estimated_from": count, **changes}
    return build_targets(LOGITS, SIMILARITY, **given)


def test_two_are_the_pair_as_the_paper_writes_it_out() -> None:
    """P(w beats pi) = (1/2 + P(w beats l)) / 2, and the loser's likewise."""
    found = targets(2)
    for row, (w, r) in enumerate(zip(found.chosen, found.rejected, strict=True)):
        assert found.p_chosen[row] == pytest.approx((0.5 + sigmoid(LOGITS[row, w, r])) / 2, rel=1e-14)
        assert found.p_rejected[row] == pytest.approx((0.5 + sigmoid(LOGITS[row, r, w])) / 2, rel=1e-14)
    others = targets(2, include_self=False)
    assert others.p_chosen == pytest.approx(2 * found.p_chosen - 0.5, rel=1e-14)


def test_three_are_the_pair_and_the_first_of_the_others() -> None:
    chosen, rejected = np.array([4, 0, 2]), np.array([1, 3, 2])
    expected = [[1, 1, 0, 0, 1], [1, 1, 0, 1, 0], [1, 1, 1, 0, 0]]
    assert estimating(chosen, rejected, 5, 3).astype(int).tolist() == expected
    found = targets(3)
    w, r = found.chosen, found.rejected
    for row in range(7):
        third = next(k for k in range(5) if k not in (w[row], r[row]))
        mean = (0.5 + sigmoid(LOGITS[row, w[row], [r[row], third]]).sum()) / 3
        assert found.p_chosen[row] == pytest.approx(mean, rel=1e-14)


@pytest.mark.parametrize("form", ["pair", "mean_overlap", "pairwise"])
def test_all_of_them_are_the_usual_estimate_and_the_pair_is_always_the_same(form: str) -> None:
    usual = targets(None, gate_form=form)
    assert np.array_equal(targets(5, gate_form=form).target_chosen, usual.target_chosen)
    few = targets(2, gate_form=form)
    assert np.array_equal(few.chosen, usual.chosen)
    assert np.array_equal(few.rejected, usual.rejected)
    assert few.target_chosen == pytest.approx(0.5 + 0.75 * (few.p_chosen - 0.5), rel=1e-13)
    assert not np.allclose(few.p_chosen, usual.p_chosen)
