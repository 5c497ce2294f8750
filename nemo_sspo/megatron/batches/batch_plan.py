"""Which pairs every optimizer step takes, in which order, on which replica: pure functions of sizes and a seed.

A pair is never split over microbatches, so the unit of every size here is one pair. Nothing depends on the layout but
the split of a global batch over the data-parallel replicas.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class GlobalBatch:
    """The pairs of one optimizer step, by row of the pairs table."""

    pairs: tuple[int, ...]

    def share(self, replica: int, replicas: int) -> tuple[int, ...]:
        """The pairs of one replica; the shares differ by at most one pair."""
        return self.pairs[replica::replicas]


def first_fit_decreasing(rows: Sequence[int], tokens: Sequence[int], budget: int) -> list[tuple[int, ...]]:
    """Group `rows` into packs of at most `budget` tokens: first fit, longest first. `tokens` is indexed by row.

    A row above the budget gets a pack of its own.
    """
    bins: list[list[int]] = []
    room: list[int] = []
    for row in sorted(rows, key=lambda row: (-tokens[row], row)):
        fits = next((index for index, left in enumerate(room) if tokens[row] <= left), None)
        if fits is None:
            bins.append([row])
            room.append(budget - tokens[row])
        else:
            bins[fits].append(row)
            room[fits] -= tokens[row]
    return [tuple(bin_) for bin_ in bins]


def level_packs(rows: Sequence[int], tokens: Sequence[int], budget: int, multiple_of: int) -> list[tuple[int, ...]]:
    """As few packs as first fit needs, up to a multiple of `multiple_of`, and then as evenly filled as it can.

    The fullest pack sets the length of all rows of a step, so the smallest capacity is sought with which first fit,
    longest first, still needs no more packs than it does with the whole budget (MULTIFIT; Coffman et al., 1978). Packs
    that are left over are empty.
    """
    best = first_fit_decreasing(rows, tokens, budget)
    count = len(completed(best, multiple_of))
    low = max([-(-sum(tokens[row] for row in rows) // count), *(tokens[row] for row in rows)])
    high = max((sum(tokens[row] for row in pack) for pack in best), default=0)
    while low < high:
        capacity = (low + high) // 2
        found = first_fit_decreasing(rows, tokens, capacity)
        if len(found) <= count:
            best, high = found, capacity
        else:
            low = capacity + 1
    return completed(best, multiple_of)


def completed(microbatches: list[tuple[int, ...]], multiple_of: int) -> list[tuple[int, ...]]:
    """The microbatches, and empty ones up to the next positive multiple of `multiple_of`."""
    count = max(1, -(-len(microbatches) // multiple_of)) * multiple_of
    return microbatches + [()] * (count - len(microbatches))


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


def candidate_steps(steps: int, candidates: int) -> list[int]:
    """After which of `steps` optimizer steps the policy is kept: `candidates` numbers, evenly spaced, `steps` the last.

    With as many candidates as epochs these are the epochs' ends. At most `steps` candidates differ from each other.
    """
    return [number * steps // candidates for number in range(1, candidates + 1)]


def candidate_problems(candidates: int, steps: int, what: str) -> Iterator[str]:
    """Two candidates would be the same checkpoint: an iteration has fewer steps. `what` says what the steps are of."""
    if candidates > steps:
        yield (
            f"selection.candidates={candidates} is more than the {steps} optimizer steps of {what}; lower it or "
            "train.global_batch_size, or raise train.train_epochs"
        )


def _cut(order: list[int], size: int) -> list[GlobalBatch]:
    return [GlobalBatch(tuple(order[start : start + size])) for start in range(0, len(order), size)]
