"""Semantic gates: how strongly a preference is kept as the two responses come to mean the same (S-SPPO sec. 3.1, D.5).

A gate's weight g maps a similarity S in [0, 1] to [0, 1], decreasing, with g(0) = 1 and g(1) = 0. S-SPPO's is
``linear``, g = 1 - S; the others are members of the family its appendix D.5 leaves open.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def none(similarity: Array) -> Array:
    """Keep every preference as it is: plain SPPO."""
    return np.ones_like(similarity)


def linear(similarity: Array) -> Array:
    """S-SPPO's gate, g(S) = 1 - S (eq. 3.1)."""
    return 1.0 - similarity


def power(similarity: Array, *, exponent: float) -> Array:
    """g(S) = (1 - S)^exponent, exponent > 0."""
    return (1.0 - similarity) ** exponent


def _falling_logistic(similarity: Array, centre: float, sharpness: float) -> Array:
    """A logistic step down at `centre`, rescaled so that it is exactly 1 at S = 0 and 0 at S = 1."""

    def step(s: Array | float) -> Array | float:
        return 0.5 * (1.0 - np.tanh(0.5 * sharpness * (s - centre)))

    top, bottom = step(0.0), step(1.0)
    return np.asarray((step(similarity) - bottom) / (top - bottom), dtype=np.float64)


def sigmoid(similarity: Array, *, sharpness: float) -> Array:
    """A logistic fall centred at S = 1/2."""
    return _falling_logistic(similarity, 0.5, sharpness)


def threshold(similarity: Array, *, centre: float, sharpness: float) -> Array:
    """A soft step at S = centre: preferences are kept below it and annealed above."""
    return _falling_logistic(similarity, centre, sharpness)


def kernel(similarity: Array, *, bandwidth: float) -> Array:
    """One minus a Gaussian kernel of the embeddings' distance, ||u_i - u_j||^2 = 2 - 2S, rescaled to g(0) = 1."""
    far = 1.0 - np.exp(-2.0 / bandwidth)
    return (1.0 - np.exp(-(2.0 - 2.0 * similarity) / bandwidth)) / far


GATE_WEIGHTS: dict[str, Callable[..., Array]] = {
    "none": none,
    "linear": linear,
    "power": power,
    "sigmoid": sigmoid,
    "threshold": threshold,
    "kernel": kernel,
}


def calibrate(p: Array, weight: Array) -> Array:
    """Anneal a probability toward 1/2, the maximum-entropy target: p~ = 1/2 + g (p - 1/2) (eq. 3.1)."""
    return 0.5 + weight * (p - 0.5)
