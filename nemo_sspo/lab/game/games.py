"""Preference games with known truth: P_ij + P_ji = 1, and in general no order of merit."""

import numpy as np
from numpy.typing import NDArray

from nemo_sspo.objective.win_rates import sigmoid

Array = NDArray[np.float64]


def rock_paper_scissors() -> Array:
    """P [3, 3] of the game whose one equilibrium is uniform."""
    ahead = np.roll(np.eye(3), -1, axis=1)
    return 0.5 + 0.5 * (ahead - ahead.T)


def domination(p: float = 1.0) -> Array:
    """P [2, 2] of two responses of which the first wins with probability p."""
    return np.array([[0.5, p], [1.0 - p, 0.5]])


def antisymmetric(generator: np.random.Generator, count: int, k: int) -> Array:
    """Matrices A = -A^T [N, K, K] with standard normal entries."""
    upper_NKK = np.triu(generator.standard_normal((count, k, k)), k=1)
    return upper_NKK - upper_NKK.swapaxes(-1, -2)


def tournaments(generator: np.random.Generator, count: int, k: int) -> Array:
    """P [N, K, K] in which every pair has a certain winner, drawn at random."""
    return 0.5 + 0.5 * np.sign(antisymmetric(generator, count, k))


def intransitive(generator: np.random.Generator, count: int, k: int, scale: float = 1.5) -> Array:
    """P [N, K, K] = sigma(scale A) with independent logits: about a quarter of the triples are circles."""
    return sigmoid(scale * antisymmetric(generator, count, k))


def bradley_terry(generator: np.random.Generator, count: int, k: int, scale: float = 1.5) -> Array:
    """P [N, K, K] = sigma(s_i - s_j): transitive, the best response is the equilibrium."""
    scores_NK = scale * generator.standard_normal((count, k))
    return sigmoid(scores_NK[:, :, None] - scores_NK[:, None, :])
