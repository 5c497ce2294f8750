"""Which two of the K responses become the pair: the best and the worst mean score (S-SPPO B.3, Snorkel, SPPO)."""

import numpy as np
from numpy.typing import NDArray


def select_pairs(scores_NK: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Indices of the chosen (argmax) and rejected (argmin) response of every prompt, each [N].

    Ties go to the smallest index, so a prompt whose scores are all equal has chosen == rejected: there is nothing to
    learn from it, and the caller drops and counts it.
    """
    return scores_NK.argmax(axis=-1), scores_NK.argmin(axis=-1)
