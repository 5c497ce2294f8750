"""Pair construction: selection, and each gate form against a slow loop over the definition."""

import numpy as np
import pytest

from nemo_sspo.objective.gates import linear, none
from nemo_sspo.objective.pair_selection import select_pairs
from nemo_sspo.objective.targets import build_targets

N, K = 20, 5


@pytest.fixture
def world():
    rng = np.random.default_rng(0)
    similarity = rng.uniform(size=(N, K, K))
    similarity = (similarity + similarity.swapaxes(1, 2)) / 2
    similarity[:, np.arange(K), np.arange(K)] = 1.0
    return rng.normal(scale=3.0, size=(N, K, K)), similarity


def sigma(x):
    return 1 / (1 + np.exp(-x))


def slow_targets(logits, similarity, form):
    """One prompt by the definitions of the method, in loops: (chosen, rejected, p~_w, p~_l, p~_wl)."""
    s = [[(logits[i][j] - logits[j][i]) / 2 for j in range(K)] for i in range(K)]
    scores = [sum(row) / K for row in s]
    w, lose = max(range(K), key=lambda i: (scores[i], -i)), min(range(K), key=lambda i: (scores[i], i))
    p = [[sigma(s[i][j]) for j in range(K)] for i in range(K)]
    rate = [sum(row) / K for row in p]

    def target(i):
        if form == "pair":
            return 0.5 + (1 - similarity[w][lose]) * (rate[i] - 0.5)
        if form == "mean_overlap":
            overlap = sum(similarity[i][k] for k in range(K) if k != i) / (K - 1)
            return 0.5 + (1 - overlap) * (rate[i] - 0.5)
        return sum(0.5 + (1 - similarity[i][j]) * (p[i][j] - 0.5) for j in range(K)) / K

    return w, lose, target(w), target(lose), 0.5 + (1 - similarity[w][lose]) * (p[w][lose] - 0.5)


@pytest.mark.parametrize("form", ["pair", "mean_overlap", "pairwise"])
def test_targets_equal_the_definition(world, form):
    logits, similarity = world
    fast = build_targets(logits, similarity, gate_form=form, gate_weight=linear)
    for n in range(N):
        w, lose, chosen, rejected, pair = slow_targets(logits[n].tolist(), similarity[n].tolist(), form)
        assert (fast.chosen[n], fast.rejected[n]) == (w, lose)
        assert fast.target_chosen[n] == pytest.approx(chosen, abs=1e-12)
        assert fast.target_rejected[n] == pytest.approx(rejected, abs=1e-12)
        assert fast.target_pair[n] == pytest.approx(pair, abs=1e-12)
        assert fast.similarity[n] == similarity[n, w, lose]


@pytest.mark.parametrize("form", ["pair", "mean_overlap", "pairwise"])
def test_identical_meaning_leaves_no_preference_and_none_of_it_leaves_all(world, form):
    logits, _ = world
    same = build_targets(logits, np.ones((N, K, K)), gate_form=form, gate_weight=linear)
    np.testing.assert_allclose(same.target_chosen, 0.5, atol=1e-12)
    np.testing.assert_allclose(same.margin_after, 0.0, atol=1e-12)
    apart = build_targets(logits, np.zeros((N, K, K)), gate_form=form, gate_weight=linear)
    np.testing.assert_allclose(apart.target_chosen, apart.p_chosen, atol=1e-12)
    plain = build_targets(logits, np.ones((N, K, K)), gate_form=form, gate_weight=none)
    np.testing.assert_allclose(plain.margin_after, plain.margin_before, atol=1e-12)


def test_the_calibrated_pairwise_game_is_constant_sum(world):
    logits, similarity = world
    targets = build_targets(logits, similarity, gate_form="pairwise", gate_weight=linear)
    swapped = build_targets(-logits, similarity, gate_form="pairwise", gate_weight=linear)
    # -l exchanges winner and loser; P~_ij + P~_ji = 1 makes the new winner's target one minus the old loser's.
    np.testing.assert_allclose(swapped.target_chosen, 1 - targets.target_rejected, atol=1e-12)
    np.testing.assert_allclose(swapped.target_pair, targets.target_pair, atol=1e-12)


def test_ties_go_to_the_smallest_index_and_equal_scores_have_no_pair():
    chosen, rejected = select_pairs(np.array([[1.0, 1.0, 0.0, 0.0], [2.0, 2.0, 2.0, 2.0]]))
    assert chosen.tolist() == [0, 0]
    assert rejected.tolist() == [2, 0]
    tied = build_targets(np.zeros((1, 3, 3)), np.zeros((1, 3, 3)), gate_weight=linear)
    assert tied.tied.tolist() == [True]


def test_unknown_gate_form_is_refused(world):
    with pytest.raises(ValueError, match="unknown gate form 'pairs'"):
        build_targets(*world, gate_form="pairs", gate_weight=linear)
