"""Comparisons that the oracle learns from: two answers to a request, with what is true about them."""

import random
from collections.abc import Sequence
from typing import NamedTuple

from transformers import PreTrainedTokenizerFast

from scripts.toy.grammar import Request, write_answer
from scripts.toy.pairrm import FIRST, SECOND, SOURCE, segment_ids
from scripts.toy.quality import fact_spans, item_spans, traits, true_preference

NO_LABEL = -1.0
LENGTHY = 24
"""words from which an answer is labelled lengthy"""


class Comparison(NamedTuple):
    """One training row. The labels of traits and tokens only help learning; the head never sees them."""

    ids: list[int]
    preference: float
    """the true probability that the first answer is preferred"""
    first_traits: list[float]
    second_traits: list[float]
    token_labels: list[float]
    """per id: 1 for part of a right item or fact, 0 for part of a wrong one, -1 elsewhere"""


TRAIT_COUNT = 9


def compare(tokenizer: PreTrainedTokenizerFast, request: Request, first: str, second: str) -> Comparison:
    """The row of one ordered pair of answers."""
    source = segment_ids(tokenizer, SOURCE, request.text)
    ids, labels = list(source), [NO_LABEL] * len(source)
    for marker, answer in ((FIRST, first), (SECOND, second)):
        segment, segment_labels = _labelled_segment(tokenizer, marker, request, answer)
        ids += segment
        labels += segment_labels
    return Comparison(
        ids=ids,
        preference=true_preference(request.text, first, second),
        first_traits=_trait_labels(request, first),
        second_traits=_trait_labels(request, second),
        token_labels=labels,
    )


def written_comparisons(
    tokenizer: PreTrainedTokenizerFast, requests: Sequence[Request], count: int, rng: random.Random
) -> list[Comparison]:
    """`count` comparisons of two answers by the data set's author, of different texts."""
    rows: list[Comparison] = []
    while len(rows) < count:
        request = rng.choice(requests)
        first, second = write_answer(rng, request), write_answer(rng, request)
        if first != second:
            rows.append(compare(tokenizer, request, first, second))
    return rows


def sampled_comparisons(
    tokenizer: PreTrainedTokenizerFast,
    requests: Sequence[Request],
    answers: Sequence[Sequence[str]],
    rng: random.Random,
) -> list[Comparison]:
    """Every pair of different answers to each request, once, in random order within the pair."""
    rows: list[Comparison] = []
    for request, texts in zip(requests, answers, strict=True):
        unique = sorted(set(texts))
        for i, first in enumerate(unique):
            for second in unique[:i]:
                pair = (first, second) if rng.random() < 0.5 else (second, first)
                rows.append(compare(tokenizer, request, *pair))
    return rows


def _trait_labels(request: Request, answer: str) -> list[float]:
    *flags, words = traits(request, answer)
    return [*map(float, flags), float(words > LENGTHY)]


def _labelled_segment(
    tokenizer: PreTrainedTokenizerFast, marker: str, request: Request, answer: str
) -> tuple[list[int], list[float]]:
    encoded = tokenizer(marker + answer, return_offsets_mapping=True)
    spans = item_spans(request, answer) + fact_spans(request, answer)
    labels = []
    for start, end in encoded["offset_mapping"]:
        inside = [s.right for s in spans if start - len(marker) < s.end and end - len(marker) > s.start]
        labels.append(float(inside[0]) if inside and end > start else NO_LABEL)
    return encoded["input_ids"], labels
