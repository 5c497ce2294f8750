"""Self-play against closed forms and SPPO's bound; what the bound does not cover breaks it."""

from itertools import islice

import numpy as np
import pytest

from nemo_sspo.lab.game import convergence, games, theory
from nemo_sspo.lab.game.equilibrium import duality_gap, equilibrium, win_rate
from nemo_sspo.lab.game.self_play import averages, play_matrix

RPS = games.rock_paper_scissors()
SEED = np.random.default_rng(7)
FAMILIES = {
    "tournaments": games.tournaments(SEED, 12, 5),
    "intransitive": games.intransitive(SEED, 12, 5),
    "bradley_terry": games.bradley_terry(SEED, 12, 5),
}


def test_the_linear_program_finds_the_equilibria_that_are_known():
    assert equilibrium(RPS) == pytest.approx(np.full(3, 1 / 3), abs=1e-9)
    assert equilibrium(games.domination(0.6)) == pytest.approx([1.0, 0.0], abs=1e-9)
    # Wins of 0.5 + a, b, c on the three edges of the circle: each weight is that of the edge opposite.
    a, b, c = 0.1, 0.2, 0.4
    edges = np.array([[0, a, -c], [-a, 0, b], [c, -b, 0]])
    assert equilibrium(0.5 + edges) == pytest.approx(np.array([b, c, a]) / (a + b + c), abs=1e-9)


@pytest.mark.parametrize("family", FAMILIES)
def test_at_an_equilibrium_the_gap_is_nothing_and_elsewhere_it_is_the_best_reply_twice(family):
    p_NKK = FAMILIES[family]
    solved = np.stack([equilibrium(p_KK) for p_KK in p_NKK])
    assert duality_gap(p_NKK, solved) == pytest.approx(np.zeros(12), abs=1e-9)
    policy = SEED.dirichlet(np.ones(5), size=12)
    replies = np.stack([win_rate(p_NKK, np.tile(pure, (12, 1)), policy) for pure in np.eye(5)])
    assert duality_gap(p_NKK, policy) == pytest.approx(2 * (replies.max(axis=0) - 0.5))


def test_games_are_constant_sum():
    for p_NKK in (*FAMILIES.values(), RPS[None], games.domination()[None]):
        assert np.abs(p_NKK + p_NKK.swapaxes(1, 2) - 1).max() <= 1e-15


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("eta", convergence.ETAS)
def test_the_average_keeps_the_bound(family, eta):
    p_NKK = FAMILIES[family]
    assert convergence.worst_share_of_bound(p_NKK, convergence.starts(SEED, p_NKK), eta, 200) <= 1.0


def test_a_step_in_the_wrong_direction_breaks_the_bound():
    """The planted fault: the loser's log-odds rise, so the other response exploits the average for ever."""
    start, steps, eta = np.full((1, 2), 0.5), 256, 0.5
    backwards = list(islice(averages(play_matrix(games.domination()[None], start, eta=-eta)), steps))[-1]
    bound = theory.gap_bound(eta, steps, theory.farthest(start))
    assert duality_gap(games.domination()[None], backwards) > bound
    assert convergence.gap_after(games.domination()[None], start, eta, steps) < bound


def test_the_last_policy_in_place_of_the_average_breaks_the_bound():
    start, eta = np.array([[0.4, 0.35, 0.25]]), 0.1
    last = next(islice(play_matrix(RPS[None], start, eta=eta), 1023, None))
    assert duality_gap(RPS[None], last) > theory.gap_bound(eta, 1024, theory.farthest(start))


@pytest.mark.parametrize("p", [0.6, 1.0])
def test_the_game_of_two_responses_follows_its_closed_form(p):
    start, eta, steps = np.array([[0.3, 0.7]]), 0.2, 90
    measured = convergence.gap_after(games.domination(p)[None], start, eta, steps).item()
    assert measured == pytest.approx(theory.domination_gap(p, 0.3, eta, steps), abs=1e-14)
    assert theory.domination_gap(p, 0.3, 1e-3, 10**6) == pytest.approx(theory.domination_limit(0.3, 1e-3, 10**6), 1e-3)


def test_the_bound_at_its_step_size_is_below_its_short_form():
    steps = np.array([1, 4, 64, 10**6])
    eta = theory.horizon_eta(steps, np.log(2.0))
    bound, short = theory.gap_bound(eta, steps, np.log(2.0)), theory.horizon_bound(steps, np.log(2.0))
    assert (bound <= short).all()
    assert bound[-1] == pytest.approx(short[-1], rel=1e-3)


def test_a_slope_is_the_exponent():
    steps = (4, 16, 64)
    assert convergence.slope(steps, [3.0 * t**-0.5 for t in steps]) == pytest.approx(-0.5)


def test_every_hypothesis_holds_with_these_numbers():
    found = {finding.name: finding for finding in convergence.findings(seeds=3)}
    assert all(finding.held for finding in found.values())
    assert found["tight rate"].measured["slope"] == pytest.approx(-0.50154, abs=1e-5)
    assert found["last iterate"].measured["gap of the last"] == pytest.approx(0.234930287, abs=1e-8)
