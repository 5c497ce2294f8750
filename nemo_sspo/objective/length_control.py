"""Win rates with the advantage of longer answers taken out.

After AlpacaEval 2's length-controlled win rate (Dubois et al. 2024, arXiv 2404.04475, §3): regress the win on a bounded
difference in length, and read off the win at no difference. Theirs is a logistic regression with terms of the model and
the instruction too, of a judge's verdicts; this one is linear, of an oracle's probabilities.

Legend: N prompts, S resamples of them.
"""

import numpy as np
from numpy.typing import NDArray

_SPREAD = 1e-9


def bounded_difference(longer_N: NDArray[np.float64]) -> NDArray[np.float64]:
    """tanh of a difference in length over its standard deviation [N]; 0 stays 0. All 0 where the lengths agree."""
    scale = float(longer_N.std()) or float(np.abs(longer_N).max())
    return np.tanh(longer_N / scale) if scale else np.zeros_like(longer_N)


def win_at_equal_length(wins_SN: NDArray[np.float64], difference_SN: NDArray[np.float64]) -> NDArray[np.float64]:
    """Intercept [S] of the least-squares line of wins over differences, within [0, 1].

    If all differences are equal, the effect of length cannot be estimated: the result is then the mean win.
    """
    mean_S, centre_S = wins_SN.mean(axis=1), difference_SN.mean(axis=1)
    centred_SN = difference_SN - centre_S[:, None]
    variance_S = (centred_SN**2).mean(axis=1)
    covariance_S = (centred_SN * wins_SN).mean(axis=1)
    slope_S = np.divide(covariance_S, variance_S, out=np.zeros_like(mean_S), where=variance_S > _SPREAD)
    return np.clip(mean_S - slope_S * centre_S, 0.0, 1.0)
