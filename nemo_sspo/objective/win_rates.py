"""From raw oracle logits to win rates (method: S-SPPO B.1-B.3, SPPO eq. 4.5).

Legend: N prompts, K responses, X any shape. ``logits_NKK[n, i, j]`` is the oracle's logit with i shown first; > 0
favours i.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def sigmoid(x: Array) -> Array:
    """Logistic function, free of overflow for any finite input."""
    return 0.5 * (1.0 + np.tanh(0.5 * np.asarray(x, dtype=np.float64)))


def _half(logits_NKK: Array) -> Array:
    return (logits_NKK - logits_NKK.swapaxes(-1, -2)) / 2


def _sum(logits_NKK: Array) -> Array:
    return logits_NKK - logits_NKK.swapaxes(-1, -2)


def _none(logits_NKK: Array) -> Array:
    return logits_NKK


SYMMETRIZATIONS: dict[str, Callable[[Array], Array]] = {"half": _half, "sum": _sum, "none": _none}


def symmetrize(logits_NKK: Array, how: str = "half") -> Array:
    """Combine both presentation orders of a pair into one logit s_ij.

    ``half`` restores P(i beats j) + P(j beats i) = 1, which Lemma 3.1 needs; ``sum`` is what llm-blender's rank
    averages; ``none`` keeps the order-dependent logits.
    """
    return SYMMETRIZATIONS[how](np.asarray(logits_NKK, dtype=np.float64))


def mean_scores(s_NKK: Array) -> Array:
    """Score of a response, its mean symmetrized logit: s_i = (1/K) sum_k s_ik. Returns [N, K] (S-SPPO B.3)."""
    return s_NKK.mean(axis=-1)


def _pairwise(logits_NKK: Array, how: str) -> Array:
    return sigmoid(symmetrize(logits_NKK, how))


def _bt_mean_score(logits_NKK: Array, how: str) -> Array:
    # Bradley-Terry on an aggregate: it cannot represent an intransitive oracle. Kept to compare with published runs.
    del how  # the aggregate is defined on both orders
    scores_NK = mean_scores(_sum(np.asarray(logits_NKK, dtype=np.float64)))
    return sigmoid(scores_NK[..., :, None] - scores_NK[..., None, :])


ESTIMATORS: dict[str, Callable[[Array, str], Array]] = {"pairwise": _pairwise, "bt_mean_score": _bt_mean_score}


def win_probabilities(logits_NKK: Array, *, symmetrization: str = "half", estimator: str = "pairwise") -> Array:
    """P_ij, the probability that response i beats response j. Returns [N, K, K] in [0, 1]; the diagonal is 1/2.

    ``pairwise`` is the papers' sigma(s_ij); ``bt_mean_score`` is the official SPPO code's sigma(score_i - score_j).
    """
    p_NKK = ESTIMATORS[estimator](logits_NKK, symmetrization)
    diagonal = np.arange(p_NKK.shape[-1])
    p_NKK[..., diagonal, diagonal] = 0.5
    return p_NKK


def win_of_first(logits_X2: Array) -> Array:
    """P(first beats second) of pairs of responses [X], combined as ``half``.

    ``logits_X2[..., 0]`` is the logit with the first response shown first, ``[..., 1]`` with the second shown first.
    """
    logits_X2 = np.asarray(logits_X2, dtype=np.float64)
    return sigmoid((logits_X2[..., 0] - logits_X2[..., 1]) / 2)


def win_rates(p_NKK: Array, *, include_self: bool = True, estimating_NK: NDArray[np.bool_] | None = None) -> Array:
    """Estimated win rate of each response against the others, the row mean of P. Returns [N, K].

    ``include_self`` counts P_ii = 1/2 (SPPO's K = 2 ablation writes it out); without it the mean is over the K - 1
    others (S-SPPO B.1). With ``estimating_NK`` the mean is over these responses alone, as many of every prompt (SPPO's
    ablation of K); it holds for the responses among them.
    """
    if estimating_NK is None:
        k, total_NK = p_NKK.shape[-1], p_NKK.sum(axis=-1)
    else:
        k = int(estimating_NK[0].sum()) if len(estimating_NK) else 2
        total_NK = (p_NKK * estimating_NK[:, None, :]).sum(axis=-1)
    return total_NK / k if include_self else (total_NK - 0.5) / (k - 1)
