"""What S-SPPO proves of its calibrated game: Lemma 3.1, Corollary 3.2 and Proposition 3.3, in numbers."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from nemo_sspo.lab.game import games, meanings
from nemo_sspo.lab.game.calibrated import FORMS, constant_sum_error, pairwise
from nemo_sspo.lab.game.convergence import ETAS, STEPS, starts, worst_share_of_bound
from nemo_sspo.lab.game.equilibrium import equilibrium, win_rates
from nemo_sspo.lab.game.gates import gate_cases
from nemo_sspo.lab.results import Finding

Array = NDArray[np.float64]

_EXACT = 1e-12
_ATTAINED = 0.999
_WEIGHTS = (0.01, 0.1, 0.25)
"""Of the regularization, lambda; at 1/4 the bound, 2 lambda, is the most by which anyone can win."""


def findings(seeds: int) -> Iterator[Finding]:
    """Hypotheses on calibration; `seeds` drawn games with an overconfident oracle."""
    generator = np.random.default_rng(1)
    drawn = meanings.draw(seeds, dial=4.0)
    policy_NK, opponent_NK = generator.dirichlet(np.full(len(drawn.meaning_K), 0.3), size=(2, seeds))
    errors: dict[str, dict[str, Array]] = {form: {} for form in FORMS}
    for case in gate_cases()[1:]:
        calibrated = FORMS[case.form](drawn.oracle_NKK, drawn.similarity_NKK, case.weight)
        errors[case.form][case.gate] = np.abs(constant_sum_error(calibrated, policy_NK, opponent_NK))
    yield _constant_sum(errors["pairwise"])
    yield _not_constant_sum("mean_overlap", "S-SPPO eq. 3.1", errors["mean_overlap"])
    yield _not_constant_sum("pair", "S-SPPO sec. 3.1, practical form", errors["pair"])
    yield _corollary(drawn)
    yield _proposition(generator, drawn)


def _constant_sum(errors: dict[str, Array]) -> Finding:
    worst = float(max(error_N.max() for error_N in errors.values()))
    return Finding(
        "lemma 3.1",
        f"with every P_ij gated by its own S_ij the game stays constant-sum, within {_EXACT}, under every gate",
        "S-SPPO Lemma 3.1",
        {"worst error": worst},
        worst <= _EXACT,
    )


def _not_constant_sum(form: str, source: str, errors: dict[str, Array]) -> Finding:
    """The lemma is of the pairwise form; the paper's text leaves open how far the others are from it."""
    mean = {f"mean error, {gate}": float(error_N.mean()) for gate, error_N in errors.items()}
    worst = {f"largest error, {gate}": float(error_N.max()) for gate, error_N in errors.items()}
    return Finding(
        f"lemma 3.1 for gate.form={form}",
        f"the form {form} is constant-sum as well, within {_EXACT}",
        source,
        mean | worst,
        max(worst.values()) <= _EXACT,
    )


def _corollary(drawn: meanings.MeaningGames) -> Finding:
    shares = {}
    for case in gate_cases():
        if case.form == "pairwise":
            p_NKK = pairwise(drawn.oracle_NKK, drawn.similarity_NKK, case.weight)
            start_NK = starts(np.random.default_rng(2), p_NKK)
            shares[f"worst share of the bound, {case.gate}"] = max(
                worst_share_of_bound(p_NKK, start_NK, eta, STEPS // 4) for eta in ETAS
            )
    return Finding(
        "corollary 3.2",
        "under every gate, pairwise, the averaged policy's gap in the calibrated game is below SPPO's bound",
        "S-SPPO Corollary 3.2",
        shares,
        max(shares.values()) <= 1.0,
    )


def suboptimality(p_KK: Array, cost_K: Array, weight: float) -> float:
    """By how much the regularized game's equilibrium can be beaten beyond 1/2 in the game without regularization.

    The payoff is P~(pi beats pi') + weight (R(pi') - R(pi)), with R the mean of `cost_K` in [-1, 1] under the policy:
    the antisymmetric construction of appendix A.3 (eq. 3.4 itself is lost in the public text).
    """
    regularized_KK = p_KK + weight * (cost_K - cost_K[:, None])
    return float(win_rates(p_KK, equilibrium(regularized_KK)).max() - 0.5)


def attaining(weight: float) -> tuple[Array, Array]:
    """A game of two responses, and their costs, whose `suboptimality` is `_ATTAINED` of 2 weight (weight <= 1/4).

    The first wins by just less than 2 weight and costs 1, the second -1: regularized the second wins.
    """
    return games.domination(0.5 + _ATTAINED * 2.0 * weight), np.array([1.0, -1.0])


def _proposition(generator: np.random.Generator, drawn: meanings.MeaningGames) -> Finding:
    linear = next(case for case in gate_cases() if case.name == "linear, pairwise")
    families = {
        "drawn meanings, linear gate": pairwise(drawn.oracle_NKK, drawn.similarity_NKK, linear.weight),
        "tournaments of 8": games.tournaments(generator, len(drawn.truth_NKK), 8),
        "intransitive of 8": games.intransitive(generator, len(drawn.truth_NKK), 8),
        "Bradley-Terry of 8": games.bradley_terry(generator, len(drawn.truth_NKK), 8),
    }
    shares = {}
    for name, p_NKK in families.items():
        cost_NK = generator.uniform(-1.0, 1.0, size=(len(p_NKK), p_NKK.shape[-1]))
        shares[f"worst share of 2 lambda, {name}"] = max(
            suboptimality(p_KK, cost_K, weight) / (2.0 * weight)
            for weight in _WEIGHTS
            for p_KK, cost_K in zip(p_NKK, cost_NK, strict=True)
        )
    attained = min(suboptimality(*attaining(weight), weight) / (2.0 * weight) for weight in _WEIGHTS)
    return Finding(
        "proposition 3.3",
        "the regularized equilibrium can be beaten by at most 2 lambda beyond 1/2, and one game comes to 0.999 of it",
        "S-SPPO Proposition 3.3",
        shares | {"share of 2 lambda, attaining game": attained},
        max(shares.values()) <= 1.0 + _EXACT and abs(attained - _ATTAINED) <= _EXACT,
    )
