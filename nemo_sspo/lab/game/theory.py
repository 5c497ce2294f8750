"""What is proved of self-play: SPPO's bound with its constants, and two games whose course has a closed form."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def farthest(start_NK: Array) -> Array:
    """The largest KL(pi || start) over all pi, -log of the least likely response [N]: the proof's ||log pi_0||."""
    return -np.log(start_NK.min(axis=-1))


def gap_bound(eta: float | Array, steps: int | Array, farthest_N: float | Array) -> Array:
    """What the duality gap of the averaged policy cannot exceed, at any step size and after any number of steps.

    SPPO's appendix A, before its choice of eta: (1 - e^-eta) / (2 eta) <= min_pi P(pi beats mean) + KL / (eta T). The
    gap is 1 - 2 min_pi P(pi beats mean), since 1/2 is the value of the game.
    """
    return 1.0 + np.expm1(-np.asarray(eta)) / eta + 2.0 * np.asarray(farthest_N) / (np.asarray(eta) * steps)


def horizon_eta(steps: int | Array, farthest_N: float | Array) -> Array:
    """sqrt(||log pi_0|| / T), the appendix's step size for T steps."""
    return np.sqrt(np.asarray(farthest_N) / steps)


def horizon_bound(steps: int | Array, farthest_N: float | Array) -> Array:
    """`gap_bound` at `horizon_eta` is at most 5/2 sqrt(||log pi_0|| / T), since 1 - (1 - e^-eta) / eta <= eta / 2."""
    return 2.5 * horizon_eta(steps, farthest_N)


def domination_gap(p: float, start: float, eta: float, steps: int) -> float:
    """Duality gap of the average after `steps` in the game of two responses of which the first wins with P = p > 1/2.

    P(first beats pi) - P(second beats pi) is p - 1/2 whatever pi is, so the log-odds of the first rise by eta (p - 1/2)
    a step; only the first exploits the average, and wins (p - 1/2) times the second's share beyond 1/2.
    """
    log_odds = np.log(start) - np.log1p(-start) + eta * (p - 0.5) * np.arange(steps)
    return float(2.0 * (p - 0.5) * (0.5 * (1.0 - np.tanh(0.5 * log_odds))).mean())


def domination_limit(start: float, eta: float, steps: int) -> float:
    """-2 log(start) / (eta T): what `domination_gap` tends to as eta (p - 1/2) -> 0 and eta (p - 1/2) T -> infinity.

    The sum over steps becomes the integral of the falling logistic, -log(start) / (eta (p - 1/2)). At `horizon_eta`
    with a uniform start it is 2 sqrt(||log pi_0|| / T): there the rate 1 / sqrt(T) is exact, 4/5 of
    `horizon_bound`.
    """
    return float(-2.0 * np.log(start) / (eta * steps))
