"""Cosines of response embeddings, from which S_ij = max(0, cos(E(y_i), E(y_j))) is made (S-SPPO sec. 3.1).

Legend: N prompts, K responses, D embedding size.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def unit_rows(vectors: Array) -> Array:
    """Rows scaled to length 1; a zero row stays zero."""
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True).clip(min=np.finfo(np.float64).tiny)


def cosines(vectors_NKD: NDArray[np.floating]) -> Array:
    """Cosine of every pair of rows, [N, K, K], in float64.

    Rows are normalized here: stored as float16 their lengths are 1 within 0.001, and equal texts overlap by exactly 1.
    """
    units_NKD = unit_rows(vectors_NKD.astype(np.float64))
    return units_NKD @ units_NKD.swapaxes(-1, -2)
