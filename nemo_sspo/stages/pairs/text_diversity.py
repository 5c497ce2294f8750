"""Diversity and length of responses as tokens, over the shards of an iteration.

Legend: N prompts, K responses.
"""

from typing import TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from nemo_sspo.objective.diversity import BLEU_ORDER, distinct, ngram_counts, self_bleu
from nemo_sspo.stages.pairs.join import JoinedShard
from nemo_sspo.stages.pairs.sample import prompt_keys

TEXT_PROMPTS = 2000
"""Prompts whose n-grams are counted, about; a smaller iteration is counted whole."""
_PERCENTILES = (5, 25, 50, 75, 95, 100)
_NAMES = ("distinct_1", "distinct_2", "self_bleu")


class TextMeans(TypedDict):
    """Fields of `Collapse`."""

    text_prompts: int
    distinct_1: float | None
    distinct_2: float | None
    self_bleu: float | None


class LengthFacts(TypedDict):
    """Fields of `Collapse`."""

    mean_tokens: float
    token_percentiles: dict[str, float]
    unfinished_share: float


class TextDiversity:
    """Means of the n-gram metrics over a seeded sample of the prompts."""

    def __init__(self, seed: int, prompts: int) -> None:
        """`prompts` is how many there are: each is taken with the probability that makes about `TEXT_PROMPTS`."""
        self._seed = seed
        share = TEXT_PROMPTS / max(prompts, 1)
        self._limit = np.uint64(share * 2.0**64) if share < 1 else np.iinfo(np.uint64).max
        self._taken = 0
        self._sums, self._counts = np.zeros((2, len(_NAMES)))

    def add(self, shard: JoinedShard) -> None:
        """Add a shard's share of the sample."""
        keys_N = prompt_keys(shard.prompt_ids, self._seed, np.zeros(1, dtype=np.int64))[:, 0]
        tokens, reasons = shard.responses.field("token_ids"), shard.responses.field("finish_reason")
        for prompt in np.flatnonzero(keys_N <= self._limit):
            rows = range(int(prompt) * shard.k, (int(prompt) + 1) * shard.k)
            bodies = [_body(tokens[row], reasons[row].as_py() == "stop") for row in rows]
            self._taken += 1
            for index, value in enumerate(_metrics(bodies)):
                if value is not None:
                    self._sums[index] += value
                    self._counts[index] += 1

    def means(self) -> TextMeans:
        """Mean of each metric over the prompts that have it."""
        means = [float(total / n) if n else None for total, n in zip(self._sums, self._counts, strict=True)]
        return TextMeans(text_prompts=self._taken, distinct_1=means[0], distinct_2=means[1], self_bleu=means[2])


def _body(tokens: pa.ListScalar, stopped: bool) -> NDArray[np.int64]:
    """Token ids without the end-of-turn token."""
    ids = tokens.values.to_numpy(zero_copy_only=False).astype(np.int64)
    return ids[:-1] if stopped else ids


def _metrics(bodies: list[NDArray[np.int64]]) -> tuple[float | None, float | None, float | None]:
    counts = list(ngram_counts(bodies, BLEU_ORDER))
    return distinct(counts[0]), distinct(counts[1]), self_bleu(counts, [len(body) for body in bodies])


class LengthCounts:
    """How often each response length occurs."""

    def __init__(self) -> None:
        self._counts = np.zeros(1, dtype=np.int64)
        self._unfinished = 0

    def add(self, responses: pa.StructArray, lengths_NK: NDArray[np.int64]) -> None:
        """Add a shard's responses and their lengths in tokens."""
        counts = np.bincount(lengths_NK.ravel(), minlength=len(self._counts))
        counts[: len(self._counts)] += self._counts
        self._counts = counts
        self._unfinished += pc.sum(pc.equal(responses.field("finish_reason"), "length")).as_py() or 0

    def facts(self) -> LengthFacts:
        """Mean and percentiles (the smallest length that this share of responses does not exceed)."""
        total, below = int(self._counts.sum()), np.cumsum(self._counts)
        places = np.searchsorted(below, np.array(_PERCENTILES) / 100 * total)
        return LengthFacts(
            mean_tokens=float(np.arange(len(self._counts)) @ self._counts) / total,
            token_percentiles={str(p): float(place) for p, place in zip(_PERCENTILES, places, strict=True)},
            unfinished_share=self._unfinished / total,
        )
