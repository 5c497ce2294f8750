"""Biases of oracles that were given them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nemo_sspo.objective.oracle_bias import Intransitivity, LengthBias, OrderBias, reliability
from nemo_sspo.objective.win_rates import win_probabilities

scores = arrays(np.float64, (3, 4), elements=st.floats(-5, 5))
ROCK_PAPER_SCISSORS = np.array([[[0.0, 2.0, -2.0], [-2.0, 0.0, 2.0], [2.0, -2.0, 0.0]]])


def transitive(scores_NK: np.ndarray) -> np.ndarray:
    return scores_NK[:, :, None] - scores_NK[:, None, :]


@given(scores, st.floats(-3, 3))
def test_a_constant_for_the_first_place_is_found(scores_NK, bonus):
    off_diagonal = 1 - np.eye(4)
    found = OrderBias()
    found.add(transitive(scores_NK) + bonus * off_diagonal)
    assert found.pairs == 3 * 6
    assert found.gap / found.pairs == pytest.approx(2 * abs(bonus), abs=1e-9)
    assert found.lean / found.pairs == pytest.approx(bonus, abs=1e-9)


def test_a_pair_flips_when_both_orders_favour_the_same_place():
    logits = np.zeros((1, 3, 3))
    logits[0, 0, 1], logits[0, 1, 0] = 1.0, 0.5  # whichever comes first wins
    logits[0, 0, 2], logits[0, 2, 0] = 1.0, -3.0  # 0 wins either way
    logits[0, 1, 2], logits[0, 2, 1] = 0.0, 1.0  # a tie has no winner to change
    found = OrderBias()
    found.add(logits)
    assert (found.flips, found.pairs) == (1, 3)


def test_rock_paper_scissors_is_one_cycle_in_either_direction():
    for logits in (ROCK_PAPER_SCISSORS, -ROCK_PAPER_SCISSORS):
        found = Intransitivity()
        found.add(logits)
        assert (found.cycles, found.triples) == (1, 1)


def test_a_tie_breaks_the_circle_and_order_bias_alone_makes_none():
    tied = ROCK_PAPER_SCISSORS.copy()
    tied[0, 0, 1] = tied[0, 1, 0] = 0.0
    first_place = np.ones((1, 3, 3)) - np.eye(3)
    found = Intransitivity()
    found.add(np.concatenate([tied, first_place]))
    assert (found.cycles, found.triples) == (0, 2)


@given(scores)
def test_scores_make_no_cycles(scores_NK):
    found = Intransitivity()
    found.add(transitive(scores_NK))
    assert (found.cycles, found.triples) == (0, 3 * 4)


def test_two_responses_have_no_triples():
    found = Intransitivity()
    found.add(np.zeros((2, 2, 2)))
    assert found.triples == 0


@given(arrays(np.int64, (3, 4), elements=st.integers(0, 50)), st.permutations(range(4)))
def test_length_bias_knows_no_order_of_responses(lengths_NK, order):
    logits = np.random.default_rng(0).normal(size=(3, 4, 4))
    p = win_probabilities(logits)
    found, permuted = LengthBias(), LengthBias()
    found.add(p, lengths_NK)
    permuted.add(p[:, order][:, :, order], lengths_NK[:, order])
    assert (found.longer_wins, found.decided) == (permuted.longer_wins, permuted.decided)
    assert permuted.correlation() == pytest.approx(found.correlation(), abs=1e-12)


def test_length_bias_of_an_oracle_that_counts_tokens():
    lengths = np.array([[1, 3, 3, 6]])
    p = 0.5 + transitive(lengths.astype(float)) / 20
    longer, shorter = LengthBias(), LengthBias()
    longer.add(p, lengths)
    shorter.add(1 - p, lengths)
    assert longer.correlation() == pytest.approx(1.0)
    assert shorter.correlation() == pytest.approx(-1.0)
    assert (longer.longer_wins, longer.decided, longer.pairs) == (5, 5, 6)  # the two of 3 tokens have no longer one
    assert shorter.longer_wins == 0


def test_length_bias_without_lengths():
    found = LengthBias()
    found.add(np.full((1, 2, 2), 0.7), np.ones((1, 2), dtype=np.int64))
    assert found.correlation() is None
    assert found.decided == 0


def test_reliability_by_hand():
    # Two bins: [.5, .75) and [.75, 1]. 0.1 is a confidence of 0.9 in the second response, which the label 0 confirms.
    found = reliability(np.array([0.6, 0.9, 0.1, 1.0]), np.array([0.0, 1.0, 0.0, 0.5]), bins=2)
    assert found.count_I.tolist() == [1, 3]
    np.testing.assert_allclose(found.confidence_I, [0.6, (0.9 + 0.9 + 1.0) / 3])
    np.testing.assert_allclose(found.accuracy_I, [0.0, 2.5 / 3])
    assert found.expected_error == pytest.approx((1 * 0.6 + 3 * (2.8 / 3 - 2.5 / 3)) / 4)


def test_a_calibrated_oracle_has_little_error_and_an_overconfident_one_its_excess():
    generator = np.random.default_rng(0)
    truth = generator.uniform(0.5, 1.0, size=200_000)
    label = (generator.uniform(size=truth.size) < truth).astype(float)
    assert reliability(truth, label, bins=10).expected_error < 0.01
    overconfident = reliability(np.full_like(truth, 0.99), label, bins=10)
    assert overconfident.expected_error == pytest.approx(0.99 - 0.75, abs=0.01)


@given(arrays(np.float64, 30, elements=st.floats(0, 1)), arrays(np.float64, 30, elements=st.floats(0, 1)))
def test_which_response_is_called_first_is_of_no_consequence(p, label):
    one, other = reliability(p, label, bins=5), reliability(1 - p, 1 - label, bins=5)
    away_from_ties = np.abs(p - 0.5) > 1e-9
    if away_from_ties.all() and not np.isin(np.round((np.abs(p - 0.5) * 10) % 1, 9), (0.0, 1.0)).any():
        assert one.expected_error == pytest.approx(other.expected_error, abs=1e-9)
