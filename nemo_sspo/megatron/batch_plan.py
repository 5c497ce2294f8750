"""Which pairs every optimizer step takes, in which order, on which replica: pure functions of sizes and a seed.

A pair is never split over microbatches, so the unit of every size here is one pair. Nothing depends on the layout but
the split of a global batch over the data-parallel replicas.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class GlobalBatch:
    """The pairs of one optimizer step, by row of the pairs table."""

    pairs: tuple[int, ...]

    def microbatches(
        self, replica: int, replicas: int, *, micro_batch_size: int, multiple_of: int = 1
    ) -> list[tuple[int, ...]]:
        """The share of one replica in microbatches of at most `micro_batch_size` pairs.

        Every replica gets equally many microbatches, a multiple of `multiple_of` (interleaved pipelines want whole
        groups of them); where the pairs do not fill them, the last ones are smaller or empty.
        """
        largest_share = -(-len(self.pairs) // replicas)
        count = max(1, -(-largest_share // micro_batch_size))
        count = -(-count // multiple_of) * multiple_of
        share = self.pairs[replica::replicas]
        return [
            share[start : start + micro_batch_size] for start in range(0, count * micro_batch_size, micro_batch_size)
        ]


def by_length(tokens: Sequence[int], *, global_batch_size: int) -> list[GlobalBatch]:
    """Every pair once, shortest first, so that rows padded to a common length waste little; `tokens` per pair."""
    return _cut(sorted(range(len(tokens)), key=tokens.__getitem__), global_batch_size)


def shuffled(num_pairs: int, *, global_batch_size: int, epochs: int, seed: int) -> list[GlobalBatch]:
    """`epochs` passes over the pairs, each in a random order of its own; the last batch of a pass may be smaller."""
    batches: list[GlobalBatch] = []
    for epoch in range(epochs):
        order = np.random.default_rng([seed, epoch]).permutation(num_pairs)
        batches += _cut(order.tolist(), global_batch_size)
    return batches


def steps_per_epoch(num_pairs: int, global_batch_size: int) -> int:
    """Optimizer steps of one pass over the pairs."""
    return -(-num_pairs // global_batch_size)


def _cut(order: list[int], size: int) -> list[GlobalBatch]:
    return [GlobalBatch(tuple(order[start : start + size])) for start in range(0, len(order), size)]
