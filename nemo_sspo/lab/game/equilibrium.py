"""The minimax equilibrium of a preference game by linear programming, and how far a policy is from one."""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

Array = NDArray[np.float64]


def equilibrium(p_KK: Array) -> Array:
    """A policy [K] whose worst win rate is the largest: the von Neumann winner (S-SPPO sec. 2.1), by a linear program.

    Raises:
        RuntimeError: the solver failed.
    """
    k = len(p_KK)
    # Variables are the policy and its worst win rate v, which is maximized: v <= (policy P)_j for every opponent j.
    found = linprog(
        c=np.append(np.zeros(k), -1.0),
        A_ub=np.column_stack([-p_KK.T, np.ones(k)]),
        b_ub=np.zeros(k),
        A_eq=np.append(np.ones(k), 0.0)[None],
        b_eq=[1.0],
        bounds=[*[(0.0, None)] * k, (None, None)],
        method="highs",
    )
    if not found.success:
        raise RuntimeError(f"the linear program of {k} responses has no solution: {found.message}")
    return found.x[:k] / found.x[:k].sum()


def win_rates(p_NKK: Array, opponent_NK: Array) -> Array:
    """P(y beats pi) of every response y against a policy, [N, K]."""
    return (p_NKK @ opponent_NK[..., None])[..., 0]


def duality_gap(p_NKK: Array, policy_NK: Array) -> Array:
    """max P(pi beats policy) - min P(policy beats pi) over all pi [N], 0 at an equilibrium (SPPO Theorem 4.1)."""
    against_NK = win_rates(p_NKK, policy_NK)
    own_NK = win_rates(p_NKK.swapaxes(-1, -2), policy_NK)
    return against_NK.max(axis=-1) - own_NK.min(axis=-1)


def win_rate(p_NKK: Array, policy_NK: Array, opponent_NK: Array) -> Array:
    """P(policy beats opponent), [N]."""
    return (policy_NK * win_rates(p_NKK, opponent_NK)).sum(axis=-1)
