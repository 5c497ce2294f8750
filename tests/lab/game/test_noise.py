"""Meanings, the oracle's noise inside them, and self-play through the pipeline's own code."""

import numpy as np
import pytest

from nemo_sspo.lab.game import meanings, noise
from nemo_sspo.lab.game.equilibrium import duality_gap, equilibrium
from nemo_sspo.lab.game.gates import gate_cases
from nemo_sspo.lab.game.meanings import meanings_left, responses_left
from nemo_sspo.lab.game.sampled import sampled_self_play

CASES = {case.name: case for case in gate_cases()}
SAME = meanings.draw(1, 0.0).meaning_K[:, None] == meanings.draw(1, 0.0).meaning_K


def test_truth_is_a_half_inside_meanings_and_the_dial_changes_nothing_between_them():
    quiet, loud = meanings.draw(3, 0.0), meanings.draw(3, 8.0)
    assert (quiet.truth_NKK[:, SAME] == 0.5).all()
    assert (quiet.truth_NKK == loud.truth_NKK).all()
    assert quiet.oracle_NKK == pytest.approx(quiet.truth_NKK)
    assert (quiet.logits_NKK == loud.logits_NKK)[:, ~SAME].all()
    inside = loud.logits_NKK[:, SAME & ~np.eye(24, dtype=bool)]
    assert set(np.abs(inside).ravel()) == {8.0}
    assert loud.logits_NKK == pytest.approx(-loud.logits_NKK.swapaxes(1, 2))


def test_similarity_tells_meanings_apart():
    similarity_NKK = meanings.draw(20, 0.0).similarity_NKK
    assert similarity_NKK[:, SAME].min() > 0.75 > 0.7 > similarity_NKK[:, ~SAME].max()
    assert similarity_NKK.min() >= 0.0


def test_noise_inside_meanings_leaves_the_equilibrium_and_noise_between_them_does_not():
    games = meanings.draw(4, 8.0)
    solved = np.stack([equilibrium(p_KK) for p_KK in games.oracle_NKK])
    assert duality_gap(games.truth_NKK, solved) == pytest.approx(np.zeros(4), abs=1e-9)
    others = meanings.draw(4, 8.0, seed=5).truth_NKK  # the planted fault: other preferences between meanings
    wrong = np.stack([equilibrium(p_KK) for p_KK in others])
    assert duality_gap(games.truth_NKK, wrong).min() > 0.01


def test_how_many_are_left():
    meaning_K = meanings.draw(1, 0.0).meaning_K
    assert responses_left(np.full((1, 24), 1 / 24)) == pytest.approx([24.0])
    assert responses_left(np.eye(24)[:1]) == pytest.approx([1.0])
    even = np.repeat(1 / 6 / np.array(meanings.PARAPHRASES), meanings.PARAPHRASES)
    assert meanings_left(even[None], meaning_K) == pytest.approx([6.0])


def test_sampled_self_play_raises_the_true_win_rate_and_a_wrong_sign_lowers_it():
    games = meanings.draw(8, 0.0)
    wins = [
        noise.Outcome.of(games, sampled_self_play(games, CASES["none"], eta=eta)).win.mean() for eta in (0.0, 2.0, -2.0)
    ]
    assert wins[0] == pytest.approx(0.5)
    assert wins[1] > 0.55 > 0.45 > wins[2]


def test_a_gate_that_closes_leaves_the_policy_and_one_that_is_open_is_no_gate():
    games = meanings.draw(4, 2.0)
    policy_NK = sampled_self_play(games, CASES["linear, pair"], eta=4.0)
    assert policy_NK.sum(axis=1) == pytest.approx(np.ones(4))
    same_text = meanings.MeaningGames(games.meaning_K, games.truth_NKK, games.logits_NKK, np.ones_like(games.truth_NKK))
    closed = sampled_self_play(same_text, CASES["linear, pair"], eta=4.0)
    assert closed == pytest.approx(games.base_NK)
    apart = meanings.MeaningGames(games.meaning_K, games.truth_NKK, games.logits_NKK, np.zeros_like(games.truth_NKK))
    ungated = sampled_self_play(games, CASES["none"], eta=4.0)
    assert sampled_self_play(apart, CASES["linear, pair"], eta=4.0) == pytest.approx(ungated)
    assert np.abs(policy_NK - ungated).max() > 0.01


def test_golden_numbers_of_a_few_games():
    games = meanings.draw(4, 4.0)
    outcome = noise.Outcome.of(games, sampled_self_play(games, CASES["linear, pair"], eta=4.0))
    assert outcome.gap == pytest.approx([0.12448161, 0.25787233, 0.13610908, 0.31154171], abs=1e-6)
    assert outcome.win == pytest.approx([0.51491585, 0.54013034, 0.60370069, 0.69195482], abs=1e-6)
