"""Self-play by multiplicative weights: SPPO with its regression solved exactly at every step (eq. 4.1, 4.4)."""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from nemo_sspo.lab.game.equilibrium import win_rates

Array = NDArray[np.float64]
WinRates = Callable[[Array], Array]
"""From a policy [N, K] to the win rate of every response against it [N, K]."""


def self_play(win_rates_against: WinRates, start_NK: Array, *, eta: float) -> Iterator[Array]:
    """pi_1, pi_2, ... without end: pi_{t+1} is proportional to pi_t exp(eta (P(y beats pi_t) - 1/2)).

    The 1/2 cancels in the normalization; with it a response that neither wins nor loses keeps its log-weight. Weights
    are held as logarithms, so that none becomes 0.
    """
    log_NK = np.log(start_NK)
    while True:
        log_NK -= np.logaddexp.reduce(log_NK, axis=-1, keepdims=True)
        policy_NK = np.exp(log_NK)
        yield policy_NK
        log_NK = log_NK + eta * (win_rates_against(policy_NK) - 0.5)


def play_matrix(p_NKK: Array, start_NK: Array, *, eta: float) -> Iterator[Array]:
    """Self-play in the games of these matrices."""
    return self_play(partial(win_rates, p_NKK), start_NK, eta=eta)


def averages(policies: Iterator[Array]) -> Iterator[Array]:
    """The mean of the first 1, 2, ... policies: the mixture of Theorem 4.1."""
    total = None
    for count, policy_NK in enumerate(policies, start=1):
        total = policy_NK.copy() if total is None else total + policy_NK
        yield total / count
