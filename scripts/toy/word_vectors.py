"""Word vectors from co-occurrence: the start without which the small oracle learns topics too slowly.

V: vocabulary, H: vector size
"""

from collections.abc import Iterable

import torch

SPREAD = 0.5
"""standard deviation of the vectors' entries"""
UNSEEN_SPREAD = 0.02


def co_occurrence_vectors(texts: Iterable[list[int]], vocabulary: int, size: int, seed: int) -> torch.Tensor:
    """[V, H] vectors: truncated SVD of the positive pointwise mutual information within a text.

    `texts` are token ids of a request and its answer together. Tokens that never occur get small random vectors.
    """
    counts_VV = torch.zeros(vocabulary, vocabulary)
    for text in texts:
        present = torch.tensor(sorted(set(text)))
        counts_VV[present[:, None], present] += 1
    counts_VV.fill_diagonal_(0)
    totals_V = counts_VV.sum(1)
    expected_VV = totals_V[:, None] * totals_V / counts_VV.sum()
    ratio_VV = torch.where(counts_VV > 0, counts_VV / expected_VV.clamp(min=1e-9), 1.0)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        left_VH, singular_H, _ = torch.svd_lowrank(ratio_VV.log().clamp(min=0), q=size, niter=4)
    vectors_VH = left_VH * singular_H.sqrt()
    vectors_VH *= SPREAD / vectors_VH.std()
    unseen_V = totals_V == 0
    vectors_VH[unseen_V] = UNSEEN_SPREAD * torch.randn(int(unseen_V.sum()), size, generator=generator)
    return vectors_VH
