"""Which two of the K responses become the pair: the best and the worst mean score (S-SPPO B.3, Snorkel, SPPO)."""

import numpy as np
from numpy.typing import NDArray


def select_pairs(scores_NK: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Indices of the chosen (argmax) and rejected (argmin) response of every prompt, each [N].

    Ties go to the smallest index, so a prompt whose scores are all equal has chosen == rejected: there is nothing to
    learn from it, and the caller drops and counts it.
    """
    return scores_NK.argmax(axis=-1), scores_NK.argmin(axis=-1)


def estimating(chosen_N: NDArray[np.intp], rejected_N: NDArray[np.intp], k: int, count: int) -> NDArray[np.bool_]:
    """The responses whose mean estimates a win rate where they are fewer than K: the pair, and the first others.

    SPPO's ablation (section 5.3): five are sampled, two of them are the pair, and `count` estimate. For two the paper
    says which; samples are in no order of merit. Returns [N, K] with `count` True in every row.
    """
    rank_NK = np.tile(np.arange(k) + 2, (len(chosen_N), 1))
    rows = np.arange(len(chosen_N))
    rank_NK[rows, chosen_N] = 0
    rank_NK[rows, rejected_N] = np.where(chosen_N == rejected_N, 0, 1)
    return rank_NK.argsort(axis=-1, kind="stable").argsort(axis=-1, kind="stable") < count
