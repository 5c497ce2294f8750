"""Whether the K responses to a prompt still differ: n-gram diversity, self-BLEU and effective rank.

Legend: K responses, U distinct n-grams of a prompt, D embedding size. N-grams are of token ids: no word splitter, the
same for every language, and exact.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Tokens = NDArray[np.int64]

BLEU_ORDER = 4
_NO_MATCH = 0.1
"""Matches assumed where an order has none (Chen and Cherry, 2014, smoothing 1)."""


def ngram_counts(responses: Sequence[Tokens], longest: int) -> Iterator[NDArray[np.int64]]:
    """How often each response holds each n-gram of the prompt's responses: [K, U] for n = 1, ..., `longest`."""
    lengths = np.array([len(tokens) for tokens in responses])
    owner = np.repeat(np.arange(len(responses)), lengths)
    room = np.concatenate([np.arange(length, 0, -1) for length in lengths])
    _, token = np.unique(np.concatenate(responses), return_inverse=True)
    code = token.astype(np.int64)  # of the n-gram that starts at each position
    for n in range(1, longest + 1):
        if n > 1:
            following = np.append(token, np.zeros(n - 1, dtype=token.dtype))[n - 1 :]
            _, code = np.unique(code * (int(token.max(initial=0)) + 1) + following, return_inverse=True)
        fits = room >= n
        names, place = np.unique(code[fits], return_inverse=True)
        flat = np.bincount(owner[fits] * len(names) + place, minlength=len(responses) * len(names))
        yield flat.reshape(len(responses), len(names))


def distinct(counts_KU: NDArray[np.int64]) -> float | None:
    """Distinct n-grams over all n-grams of the responses (Li et al., 2016); None where none is that long."""
    total = int(counts_KU.sum())
    return counts_KU.shape[1] / total if total else None


def self_bleu(counts: Sequence[NDArray[np.int64]], lengths: Sequence[int]) -> float | None:
    """Mean BLEU of each response against the others of its prompt (Zhu et al., 2018): 1 where all are equal.

    `counts` are `ngram_counts`. An order that a response is too short for is left out; precisions are clipped by the
    largest count among the others, the brevity penalty takes the closest length. None with an empty response only.
    """
    scores = []
    for k, length in enumerate(lengths):
        others = [other for index, other in enumerate(lengths) if index != k]
        if not length or not others:
            continue
        logs = []
        for counts_KU in counts:
            own_U = counts_KU[k]
            if own_U.sum():
                matched = np.minimum(own_U, np.delete(counts_KU, k, axis=0).max(axis=0)).sum()
                logs.append(np.log(max(float(matched), _NO_MATCH) / own_U.sum()))
        closest = min(others, key=lambda other: (abs(other - length), other))
        penalty = min(0.0, 1.0 - closest / length)
        scores.append(np.exp(np.mean(logs) + penalty))
    return float(np.mean(scores)) if scores else None


def effective_rank(singular_values: Array) -> Array:
    """exp(entropy) of the normalized singular values on the last axis (Roy and Vetterli, 2007): 1 if one dominates."""
    share = singular_values / singular_values.sum(axis=-1, keepdims=True).clip(min=np.finfo(np.float64).tiny)
    return np.exp(-(share * np.log(share.clip(min=np.finfo(np.float64).tiny))).sum(axis=-1))


def singular_values_of_gram(gram: Array) -> Array:
    """Singular values of A from A A^T or A^T A on the last two axes."""
    return np.sqrt(np.linalg.eigvalsh(gram).clip(min=0.0))
