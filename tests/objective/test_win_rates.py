"""Win rates against values worked out by hand, and the constant-sum property that Lemma 3.1 needs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nemo_sspo.objective.win_rates import mean_scores, sigmoid, symmetrize, win_of_first, win_probabilities, win_rates

K = 4
logits = arrays(np.float64, (3, K, K), elements=st.floats(-30, 30))


def test_two_responses_by_hand():
    # l_01 = 3, l_10 = -1: s_01 = (3 - -1)/2 = 2, so P_01 = sigma(2) and, with P_00 = 1/2, the win rate is their mean.
    raw = np.array([[[0.0, 3.0], [-1.0, 0.0]]])
    p = win_probabilities(raw)
    assert p[0, 0, 1] == pytest.approx(1 / (1 + np.exp(-2.0)), rel=1e-15)
    assert win_rates(p)[0, 0] == pytest.approx((0.5 + 1 / (1 + np.exp(-2.0))) / 2, rel=1e-15)
    assert win_rates(p, include_self=False)[0, 0] == pytest.approx(1 / (1 + np.exp(-2.0)), rel=1e-15)


@given(logits)
def test_a_pair_alone_has_the_win_rate_that_it_has_among_all(raw):
    both_orders = np.stack([raw[:, 0, 1], raw[:, 1, 0]], axis=-1)
    assert win_of_first(both_orders).tolist() == win_probabilities(raw)[:, 0, 1].tolist()


def test_sum_doubles_half_and_none_keeps_the_presentation_order():
    raw = np.array([[[0.0, 3.0], [-1.0, 0.0]]])
    assert symmetrize(raw, "sum")[0, 0, 1] == 4.0
    assert symmetrize(raw, "half")[0, 0, 1] == 2.0
    assert symmetrize(raw, "none")[0, 1, 0] == -1.0


def test_pairwise_sees_a_cycle_that_bradley_terry_erases():
    # Rock, paper, scissors with sure wins, plus a response that loses to all of them.
    raw = np.array([[[0, 6, -6, 6], [-6, 0, 6, 6], [6, -6, 0, 6], [-6, -6, -6, 0]]], dtype=float)
    aggregate = win_probabilities(raw, estimator="bt_mean_score")[0]
    pairwise = win_probabilities(raw)[0]
    np.testing.assert_allclose(aggregate[:3, :3], 0.5)
    assert pairwise[0, 1] > 0.99
    assert pairwise[1, 0] < 0.01


def test_bt_mean_score_by_hand():
    # score_0 = mean(l_0k - l_k0) = (0 + 4)/2 = 2, score_1 = -2: P_01 = sigma(4).
    raw = np.array([[[0.0, 3.0], [-1.0, 0.0]]])
    assert win_probabilities(raw, estimator="bt_mean_score")[0, 0, 1] == pytest.approx(1 / (1 + np.exp(-4.0)))


def test_mean_score_counts_the_zero_diagonal():
    s = symmetrize(np.array([[[0.0, 2.0, 4.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]]))
    np.testing.assert_allclose(mean_scores(s)[0], [(1 + 2) / 3, -1 / 3, -2 / 3])


def test_sigmoid_does_not_overflow():
    with np.errstate(over="raise"):
        np.testing.assert_array_equal(sigmoid(np.array([-1e4, 0.0, 1e4])), [0.0, 0.5, 1.0])


@given(logits, st.sampled_from(["half", "sum"]), st.sampled_from(["pairwise", "bt_mean_score"]))
def test_the_game_is_constant_sum(raw, how, estimator):
    p = win_probabilities(raw, symmetrization=how, estimator=estimator)
    np.testing.assert_allclose(p + p.swapaxes(-1, -2), 1.0, atol=1e-12)
    np.testing.assert_allclose(win_rates(p).sum(axis=-1), K / 2, atol=1e-12)


@given(logits, st.permutations(range(K)))
def test_reordering_the_responses_reorders_the_win_rates(raw, order):
    order = list(order)
    shuffled = raw[:, order][:, :, order]
    np.testing.assert_allclose(
        win_rates(win_probabilities(shuffled)), win_rates(win_probabilities(raw))[:, order], atol=1e-12
    )
