"""The softmax's normalizer of each token: ``log p = (y - m) - log Z``."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Normalizer(NamedTuple):
    """m, the largest logit, and Z, the sum of exp(logit - m); both over the whole vocabulary. C tokens."""

    maximum_C: Tensor
    """[C] fp32."""
    total_C: Tensor
    """[C] fp32."""
