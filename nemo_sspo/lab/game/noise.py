"""What an oracle that is overconfident inside meanings does to the policy, with every gate and without one.

Policies are trained on the oracle, and judged by the truth.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, product

import numpy as np
from numpy.typing import NDArray

from nemo_sspo.artifacts.interval import Interval
from nemo_sspo.lab.game import meanings
from nemo_sspo.lab.game.calibrated import FORMS, pairwise
from nemo_sspo.lab.game.equilibrium import duality_gap, equilibrium, win_rate
from nemo_sspo.lab.game.gates import GateCase, gate_cases
from nemo_sspo.lab.game.sampled import ITERATIONS, sampled_self_play
from nemo_sspo.lab.game.self_play import averages, self_play
from nemo_sspo.lab.results import Finding
from nemo_sspo.stages.evaluation.bootstrap import bootstrap_mean

Array = NDArray[np.float64]

DIALS = (0.0, 2.0, 4.0, 8.0)
"""Logits of the oracle inside a meaning; PairRM's own reach about 8."""
ETAS = (1.0, 2.0, 4.0, 8.0, 16.0)
LAMBDAS = (0.0, 0.1)
"""Weights of the regularization of Proposition 3.3."""
LONG = 256
"""Steps after which the averaged policy is near its equilibrium."""
_SOLVED = 1e-6
JUDGED_ETA, _JUDGED_DIAL, _JUDGED_GATE = 4.0, 4.0, "linear, pair"
_HARM = 0.01


@dataclass(frozen=True)
class Outcome:
    """The policies that came out in N games, judged by the truth; every field is [N]."""

    gap: Array
    """Duality gap."""
    win: Array
    """Win rate against the policy before self-play."""
    responses: Array
    """exp(entropy): how many of the 24 responses are left."""

    @staticmethod
    def of(games: meanings.MeaningGames, policy_NK: Array) -> "Outcome":
        """Judge policies."""
        return Outcome(
            duality_gap(games.truth_NKK, policy_NK),
            win_rate(games.truth_NKK, policy_NK, games.base_NK),
            meanings.responses_left(policy_NK),
        )


@dataclass(frozen=True)
class Row:
    """A setting of the grid, with 95 % bootstrap intervals over its games."""

    how: str
    """``sampled``: K = 5 through the pipeline's code, the policy after `ITERATIONS` iterations. ``averaged``:
    expectations in place of samples, the mean of `LONG` policies."""
    gate: str
    dial: float
    eta: float
    weight: float
    gap: Interval
    gap_less_ungated: Interval
    """The same games' difference to no gate."""
    win: Interval
    win_less_ungated: Interval
    responses: Interval


Outcomes = dict[tuple[str, str, float, float, float], Outcome]
"""By how, gate, dial, eta and weight of the regularization."""


def outcomes(seeds: int) -> Outcomes:
    """Every setting of the grid on the same `seeds` games."""
    found: Outcomes = {}
    for dial, case, eta in product(DIALS, gate_cases(), ETAS):
        games = meanings.draw(seeds, dial)
        found["sampled", case.name, dial, eta, 0.0] = Outcome.of(games, sampled_self_play(games, case, eta=eta))
        for weight in LAMBDAS:
            averaged = Outcome.of(games, _averaged(games, case, eta, weight))
            found["averaged", case.name, dial, eta, weight] = averaged
    return found


def _averaged(games: meanings.MeaningGames, case: GateCase, eta: float, weight: float) -> Array:
    """The mean of `LONG` policies of exact self-play.

    The regularization's cost of a response is its mean similarity to all: a policy is rewarded for unlike responses.
    """
    calibrated = FORMS[case.form](games.oracle_NKK, games.similarity_NKK, case.weight)
    cost_NK = games.similarity_NKK.mean(axis=-1)
    policies = self_play(lambda policy_NK: calibrated(policy_NK) - weight * cost_NK, games.base_NK, eta=eta)
    return next(islice(averages(policies), LONG - 1, None))


def rows(found: Outcomes) -> list[Row]:
    """The grid as a table."""
    table = []
    for (how, gate, dial, eta, weight), outcome in found.items():
        ungated = found[how, "none", dial, eta, weight]
        table.append(
            Row(
                how,
                gate,
                dial,
                eta,
                weight,
                gap=_interval(outcome.gap),
                gap_less_ungated=_interval(outcome.gap - ungated.gap),
                win=_interval(outcome.win),
                win_less_ungated=_interval(outcome.win - ungated.win),
                responses=_interval(outcome.responses),
            )
        )
    return table


def _interval(values_N: Array) -> Interval:
    return bootstrap_mean(values_N, samples=1000, confidence=0.95, seed=0)


def findings(seeds: int, found: Outcomes) -> Iterator[Finding]:
    """Hypotheses on the noise, from the grid's `outcomes`; equilibria are solved anew."""
    yield _noise_and_the_equilibrium(seeds)
    yield _gates_and_the_equilibrium(seeds)
    yield _noise_alone(found)
    yield _gate_against_noise(found)
    yield _gate_without_noise(found)
    yield _gate_against_noise_at_its_best(found)
    yield _gate_keeps_responses(found)


def _true_gap_of_equilibria(games: meanings.MeaningGames, p_NKK: Array) -> Array:
    return duality_gap(games.truth_NKK, np.stack([equilibrium(p_KK) for p_KK in p_NKK]))


def _noise_and_the_equilibrium(seeds: int) -> Finding:
    """Inside a meaning the noise is itself a constant-sum game of value 1/2, so the meanings' own equilibrium stays."""
    worst = {}
    for dial in DIALS:
        games = meanings.draw(seeds, dial)
        worst[f"largest true gap, dial {dial:g}"] = float(_true_gap_of_equilibria(games, games.oracle_NKK).max())
    return Finding(
        "noise and the equilibrium",
        f"however sure the oracle is inside meanings, its equilibrium is one of the true game: true gap <= {_SOLVED}",
        "ours",
        worst,
        max(worst.values()) <= _SOLVED,
    )


def _gates_and_the_equilibrium(seeds: int) -> Finding:
    games = meanings.draw(seeds, 0.0)
    gaps = {
        f"mean true gap, {case.gate}": float(
            _true_gap_of_equilibria(games, pairwise(games.oracle_NKK, games.similarity_NKK, case.weight)).mean()
        )
        for case in gate_cases()
        if case.form == "pairwise"
    }
    return Finding(
        "gates and the equilibrium",
        f"where the oracle is right, the calibrated game's equilibrium is one of the true game: true gap <= {_SOLVED}",
        "S-SPPO abstract and sec. 3.3, taken at their word",
        gaps,
        max(gaps.values()) <= _SOLVED,
    )


def _judged(found: Outcomes, gate: str, dial: float) -> Outcome:
    return found["sampled", gate, dial, JUDGED_ETA, 0.0]


def _noise_alone(found: Outcomes) -> Finding:
    change = _interval(_judged(found, "none", _JUDGED_DIAL).gap - _judged(found, "none", 0.0).gap)
    return Finding(
        "noise hurts without a gate",
        f"sampled, {ITERATIONS} iterations: an oracle with logits of {_JUDGED_DIAL:g} inside meanings leaves a larger "
        "true gap than one without; the 95 % interval excludes 0",
        "S-SPPO sec. 2.2",
        _told("change of the gap", change),
        change.low > 0.0,
    )


def _gate_against_noise(found: Outcomes) -> Finding:
    gated, ungated = (_judged(found, gate, _JUDGED_DIAL) for gate in (_JUDGED_GATE, "none"))
    gap, win = _interval(gated.gap - ungated.gap), _interval(gated.win - ungated.win)
    return Finding(
        "the gate helps against noise",
        f"sampled, with that oracle: S-SPPO's gate ({_JUDGED_GATE}) leaves a smaller true gap than none; the 95 % "
        "interval excludes 0",
        "S-SPPO abstract",
        _told("change of the gap", gap) | _told("change of the true win rate", win),
        gap.high < 0.0,
    )


def _gate_against_noise_at_its_best(found: Outcomes) -> Finding:
    """A gate shortens steps, and so does a smaller eta: the one is worth something if it beats the other."""
    best = {}
    for gate in (_JUDGED_GATE, "none"):
        tried = {eta: found["sampled", gate, _JUDGED_DIAL, eta, 0.0] for eta in ETAS}
        best[gate] = min(tried.items(), key=lambda item: item[1].gap.mean())
    (eta, gated), (ungated_eta, ungated) = best[_JUDGED_GATE], best["none"]
    gap = _interval(gated.gap - ungated.gap)
    return Finding(
        "the gate does more than a smaller step",
        "sampled, with that oracle, each at its best eta: the gate leaves a smaller true gap than none; the 95 % "
        "interval excludes 0",
        "ours",
        _told("change of the gap", gap) | {"best eta with gate": eta, "best eta without": ungated_eta},
        gap.high < 0.0,
    )


def _gate_without_noise(found: Outcomes) -> Finding:
    gated, ungated = (_judged(found, gate, 0.0) for gate in (_JUDGED_GATE, "none"))
    gap, win = _interval(gated.gap - ungated.gap), _interval(gated.win - ungated.win)
    return Finding(
        "the gate costs nothing without noise",
        f"sampled, with an oracle that is right: the gate raises the true gap by no more than {_HARM}, by the whole "
        "95 % interval",
        "S-SPPO appendix D.2",
        _told("change of the gap", gap) | _told("change of the true win rate", win),
        gap.high <= _HARM,
    )


def _gate_keeps_responses(found: Outcomes) -> Finding:
    gated, ungated = (_judged(found, gate, _JUDGED_DIAL) for gate in (_JUDGED_GATE, "none"))
    change = _interval(gated.responses - ungated.responses)
    return Finding(
        "the gate keeps responses",
        "sampled, with the overconfident oracle: more responses are left with the gate; the 95 % interval excludes 0",
        "S-SPPO sec. 3",
        _told("change of exp(entropy)", change) | {"without gate": float(ungated.responses.mean())},
        change.low > 0.0,
    )


def _told(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.mean, f"{name}, low": interval.low, f"{name}, high": interval.high}
