"""The calibrated game of every gate form: the win rate that a response is trained on against a policy, exactly.

What `objective/targets.py` computes from K samples, in the limit of many: the means over samples become expectations
under the opponent's policy. The pair's partner is drawn from that policy; which partner the pipeline selects of K is
left to `sampled.py`.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from nemo_sspo.lab.game.equilibrium import win_rates
from nemo_sspo.objective.gates import calibrate

Array = NDArray[np.float64]
Weight = Callable[[Array], Array]
Calibrated = Callable[[Array], Array]
"""From the opponent's policy [N, K] to the calibrated win rate of every response [N, K]."""


def pairwise(p_NKK: Array, similarity_NKK: Array, weight: Weight) -> Array:
    """P~ of Lemma 3.1 (A.1) [N, K, K]: every preference annealed by its own similarity. A game of its own."""
    return calibrate(p_NKK, weight(similarity_NKK))


def _of_pairwise(p_NKK: Array, similarity_NKK: Array, weight: Weight) -> Calibrated:
    calibrated_NKK = pairwise(p_NKK, similarity_NKK, weight)
    return lambda opponent_NK: win_rates(calibrated_NKK, opponent_NK)


def _of_mean_overlap(p_NKK: Array, similarity_NKK: Array, weight: Weight) -> Calibrated:
    def rates(opponent_NK: Array) -> Array:
        overlap_NK = win_rates(similarity_NKK, opponent_NK)
        return calibrate(win_rates(p_NKK, opponent_NK), weight(overlap_NK.clip(0.0, 1.0)))

    return rates


def _of_pair(p_NKK: Array, similarity_NKK: Array, weight: Weight) -> Calibrated:
    weight_NKK = weight(similarity_NKK)
    return lambda opponent_NK: calibrate(win_rates(p_NKK, opponent_NK), win_rates(weight_NKK, opponent_NK))


FORMS: dict[str, Callable[[Array, Array, Weight], Calibrated]] = {
    "pairwise": _of_pairwise,
    "mean_overlap": _of_mean_overlap,
    "pair": _of_pair,
}


def constant_sum_error(calibrated: Calibrated, policy_NK: Array, opponent_NK: Array) -> Array:
    """P~(policy beats opponent) + P~(opponent beats policy) - 1 [N]: 0 in a constant-sum game (eq. 3.3)."""
    forth_N = (policy_NK * calibrated(opponent_NK)).sum(axis=-1)
    back_N = (opponent_NK * calibrated(policy_NK)).sum(axis=-1)
    return forth_N + back_N - 1.0
