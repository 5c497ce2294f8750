"""The calibrated game: exact where the lemma says so, and only there."""

import numpy as np
import pytest

from nemo_sspo.lab.game import calibration, games, meanings
from nemo_sspo.lab.game.calibrated import FORMS, constant_sum_error
from nemo_sspo.lab.game.equilibrium import win_rates
from nemo_sspo.lab.game.gates import gate_cases
from nemo_sspo.objective.targets import build_targets

DRAWN = meanings.draw(6, dial=4.0)
CASES = {case.name: case for case in gate_cases()}
POLICIES = np.random.default_rng(3).dirichlet(np.full(24, 0.3), size=(2, 6))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_lemma_3_1_is_exact_for_the_pairwise_form_and_for_no_other(case):
    calibrated = FORMS[case.form](DRAWN.oracle_NKK, DRAWN.similarity_NKK, case.weight)
    error_N = np.abs(constant_sum_error(calibrated, *POLICIES))
    assert (error_N.max() <= 1e-12) == (case.form == "pairwise")
    if case.form == "pair":
        assert error_N.mean() > 1e-3


def test_an_oracle_that_is_not_constant_sum_is_seen():
    """The planted fault: without symmetrization P_ij + P_ji is not 1, and no gate mends it."""
    tilted = DRAWN.oracle_NKK.copy()
    tilted[:, 0, 1] += 0.1
    calibrated = FORMS["pairwise"](tilted, DRAWN.similarity_NKK, CASES["linear, pairwise"].weight)
    assert np.abs(constant_sum_error(calibrated, *POLICIES)).max() > 1e-6


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_without_a_gate_every_form_is_the_oracles_win_rate_and_none_reverses_one(case):
    plain = win_rates(DRAWN.oracle_NKK, POLICIES[0])
    assert FORMS[case.form](DRAWN.oracle_NKK, DRAWN.similarity_NKK, CASES["none"].weight)(POLICIES[0]) == pytest.approx(
        plain
    )
    if case.form != "pairwise":
        gated = FORMS[case.form](DRAWN.oracle_NKK, DRAWN.similarity_NKK, case.weight)(POLICIES[0])
        assert ((gated - 0.5) * (plain - 0.5) >= 0).all()
        assert (np.abs(gated - 0.5) <= np.abs(plain - 0.5)).all()


@pytest.mark.parametrize("form", ["pairwise", "mean_overlap"])
def test_the_exact_form_is_the_limit_of_the_pipelines_targets(form):
    """Uniform policy over the responses: samples that hold every one equally often have its expectations."""
    case, copies = CASES[f"linear, {form}"], 40
    rows = np.tile(np.arange(24), copies)
    logits, similarity = (each[:1, rows[:, None], rows] for each in (DRAWN.logits_NKK, DRAWN.similarity_NKK))
    found = build_targets(logits, similarity, gate_form=case.form, gate_weight=case.weight)
    exact = FORMS[form](DRAWN.oracle_NKK, DRAWN.similarity_NKK, case.weight)(DRAWN.base_NK)[0]
    assert found.target_chosen[0] == pytest.approx(exact[rows[found.chosen[0]]], abs=2e-3)
    assert found.target_rejected[0] == pytest.approx(exact[rows[found.rejected[0]]], abs=2e-3)


def test_the_regularized_equilibrium_meets_its_bound_only_in_the_game_made_for_it():
    for weight in (0.05, 0.25):
        assert calibration.suboptimality(*calibration.attaining(weight), weight) == pytest.approx(0.999 * 2 * weight)
    assert calibration.suboptimality(games.rock_paper_scissors(), np.zeros(3), 0.2) == pytest.approx(0, abs=1e-9)
    # The regularization adds 0.04 to the one and takes it from the other, too little to turn 0.1 round.
    assert calibration.suboptimality(games.domination(0.6), np.array([1.0, -1.0]), 0.04) == pytest.approx(0, abs=1e-9)


def test_verdicts_and_numbers_of_a_few_games():
    found = {finding.name: finding for finding in calibration.findings(seeds=3)}
    assert {name: finding.held for name, finding in found.items()} == {
        "lemma 3.1": True,
        "lemma 3.1 for gate.form=mean_overlap": False,
        "lemma 3.1 for gate.form=pair": False,
        "corollary 3.2": True,
        "proposition 3.3": True,
    }
    linear = [
        found[f"lemma 3.1 for gate.form={form}"].measured["mean error, linear"] for form in ("pair", "mean_overlap")
    ]
    assert linear[0] == pytest.approx(linear[1])  # a linear weight of a mean is the mean of the weights
    assert linear[0] == pytest.approx(0.006501284087733057, rel=1e-6)
