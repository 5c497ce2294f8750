"""Diversity metrics: values by hand, extremes, and invariances."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_sspo.objective.diversity import (
    distinct,
    effective_rank,
    ngram_counts,
    self_bleu,
    singular_values_of_gram,
)

token_lists = st.lists(st.lists(st.integers(0, 4), max_size=12), min_size=2, max_size=5)


def arrays_of(texts) -> list[np.ndarray]:
    return [np.array(text, dtype=np.int64) for text in texts]


def bleu_of(texts) -> float | None:
    return self_bleu(list(ngram_counts(arrays_of(texts), 4)), [len(text) for text in texts])


@given(token_lists)
def test_counts_are_those_of_a_plain_count(texts):
    for n, counts_KU in enumerate(ngram_counts(arrays_of(texts), 4), start=1):
        grams = [[tuple(text[start : start + n]) for start in range(len(text) - n + 1)] for text in texts]
        names = {gram for found in grams for gram in found}
        columns = sorted(tuple(row) for row in counts_KU.T.tolist())
        assert columns == sorted(tuple(found.count(name) for found in grams) for name in names)


def test_distinct_by_hand():
    unigrams, bigrams = ngram_counts(arrays_of([[1, 2, 1], [1, 2]]), 2)
    assert distinct(unigrams) == 2 / 5
    assert distinct(bigrams) == 2 / 3  # 12, 21 | 12
    assert distinct(next(ngram_counts(arrays_of([[], []]), 1))) is None


def test_self_bleu_by_hand():
    # [1 2 3 4 5] against [1 2 3 9]: matches 3/5, 2/4, 1/3 and no 4-gram of 2, as if 0.1; the other is shorter.
    first = np.exp(np.mean(np.log([3 / 5, 2 / 4, 1 / 3, 0.1 / 2])))
    # The other way: 3/4, 2/3, 1/2, 0.1/1 and a brevity penalty of exp(1 - 5/4).
    second = np.exp(np.mean(np.log([3 / 4, 2 / 3, 1 / 2, 0.1])) + 1 - 5 / 4)
    assert bleu_of([[1, 2, 3, 4, 5], [1, 2, 3, 9]]) == pytest.approx((first + second) / 2, rel=1e-12)


def test_matches_are_clipped_by_the_largest_count_of_any_other():
    # [1 1 1]: of its three 1s, one other has one and one has two: two are matched; bigram 11 matched once of twice.
    counts = list(ngram_counts(arrays_of([[1, 1, 1], [1, 2, 3], [1, 4, 1, 1]]), 2))
    # Third first: [1 4 1 1] has three 1s, all matched by [1 1 1]; 4 is not. Bigrams 14, 41, 11: one matched.
    expected = [
        np.exp(np.mean(np.log([3 / 3, 1 / 2]))),
        np.exp(np.mean(np.log([1 / 3, 0.1 / 2]))),
        np.exp(np.mean(np.log([3 / 4, 1 / 3]))),
    ]
    assert self_bleu(counts, [3, 3, 4]) == pytest.approx(np.mean(expected), rel=1e-12)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=10), st.integers(2, 5))
def test_equal_responses_have_self_bleu_one(text, k):
    assert bleu_of([text] * k) == pytest.approx(1.0, abs=1e-12)


@given(token_lists, st.randoms(use_true_random=False))
def test_metrics_know_no_order_and_no_names_of_tokens(texts, random):
    renamed = [[10**6 + 7 * token for token in text] for text in texts]
    random.shuffle(renamed)
    assert (bleu_of(renamed) or -1) == pytest.approx(bleu_of(texts) or -1, rel=1e-12)
    for one, other in zip(ngram_counts(arrays_of(texts), 4), ngram_counts(arrays_of(renamed), 4), strict=True):
        assert distinct(one) == distinct(other)


def test_empty_responses_only():
    assert bleu_of([[], []]) is None
    assert bleu_of([[], [1, 2]]) == pytest.approx(np.exp(np.mean(np.log([0.1 / 2, 0.1 / 1]))))


@pytest.mark.parametrize("k", [2, 5])
def test_effective_rank_of_extremes(k):
    orthogonal, equal = np.eye(k), np.ones((k, k))
    assert effective_rank(singular_values_of_gram(orthogonal)) == pytest.approx(k, rel=1e-6)
    assert effective_rank(singular_values_of_gram(equal)) == pytest.approx(1.0, abs=1e-5)


def test_effective_rank_by_hand_and_from_either_gram():
    assert effective_rank(np.array([3.0, 1.0])) == pytest.approx(4 / 3 ** (3 / 4))  # exp of the entropy of (3/4, 1/4)
    vectors = np.random.default_rng(0).normal(size=(6, 4))
    singular = np.linalg.svd(vectors, compute_uv=False)
    for gram in (vectors.T @ vectors, vectors @ vectors.T):
        assert effective_rank(singular_values_of_gram(gram)) == pytest.approx(effective_rank(singular), rel=1e-6)
