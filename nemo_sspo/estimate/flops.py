"""Products that a rank computes in an optimizer step. A multiply-add is two operations.

Each matrix meets its tokens forward, for the input's gradient and, unless it is frozen, for its own; full recomputation
repeats the layers' forward products, selective those of attention. The head meets the response tokens alone: three
times where it computes gradients while the logits exist, four times where it computes these again.
"""

from __future__ import annotations

from dataclasses import dataclass

from nemo_sspo.estimate.batch import Batch
from nemo_sspo.estimate.parameters import Matrix, adapters, attention, expert, feed_forward, matrices, router
from nemo_sspo.estimate.rank import TrainingRank
from nemo_sspo.megatron.batches.row_shape import rounded_up

_FLEX_BLOCK = 128
"""Flex-attention walks over blocks of so many queries and keys."""


@dataclass(frozen=True)
class Flops:
    """Of a step."""

    layers: int
    head: int
    attention: int
    """As if no key were masked: about twice what a causal kernel computes."""

    @property
    def total(self) -> int:
        return self.layers + self.head + self.attention


def step_flops(rank: TrainingRank, batch: Batch) -> Flops:
    """What a rank computes in a step, without the optimizer's."""
    each = batch.microbatches
    return Flops(each * _layers(rank, batch), each * _head(rank, batch), each * _attention(rank, batch))


def _layers(rank: TrainingRank, batch: Batch) -> int:
    forwards = 2 if rank.train.recompute == "full" else 1
    passes = forwards + 1 + (not rank.is_frozen)
    weights = passes * _met(rank) // rank.parallel.tensor
    weights += rank.layers * (forwards + 2) * sum(adapters(rank)) * rank.is_frozen
    return 2 * batch.tokens * (weights - _unneeded(rank))


def _met(rank: TrainingRank) -> int:
    """Weights that a token meets in this stage's layers, over its tensor-parallel ranks; of a mixture those of its
    experts, which are taken to be met by equally many tokens each, and the router's."""
    mixture, mixed = rank.model.mixture, rank.mixed_layers
    found = rank.layers * _sizes(attention(rank))
    found += (rank.layers - mixed) * _sizes(feed_forward(rank, rank.model.intermediate_size))
    if mixture is None:
        return found
    return found + mixed * (mixture.experts_per_token * _sizes(expert(mixture, rank)) + router(rank))


def _sizes(found: list[Matrix]) -> int:
    return sum(matrix.size for matrix in found)


def _unneeded(rank: TrainingRank) -> int:
    """Weights whose input's gradient nobody asks for: those of the first matrix behind a frozen embedding."""
    if not (rank.is_frozen and rank.is_first) or rank.train.recompute == "full":
        return 0
    first, input_of_first = matrices(rank)[0], adapters(rank)[0]
    return first.size // rank.parallel.tensor + input_of_first


def _head(rank: TrainingRank, batch: Batch) -> int:
    if not rank.is_last:
        return 0
    passes = (3 if rank.one_pass else 4) - rank.is_frozen
    return 2 * sum(batch.scored) * rank.model.vocab_size // rank.parallel.tensor * rank.model.hidden_size * passes


def _attention(rank: TrainingRank, batch: Batch) -> int:
    """Two products forward, five backward: the scores are computed again there."""
    passes = (2 if rank.train.recompute == "none" else 4) + 5
    return 2 * passes * _scores(rank, batch) * rank.queries * rank.layers


def _scores(rank: TrainingRank, batch: Batch) -> int:
    """Queries times keys of one head in a microbatch. Flex-attention gathers the keys of the context-parallel ranks; in
    the ring a rank leaves out the half of what its queries may not see."""
    context, train = rank.parallel.context, rank.train
    rows = 1 if train.packing else 2 * train.micro_batch_size
    of_row = batch.tokens // rows
    if rank.takes_flex_attention:
        return rows * rounded_up(of_row, _FLEX_BLOCK) * rounded_up(of_row * context, _FLEX_BLOCK)
    sequences = batch.responses if train.packing else rows
    of_sequence = of_row // (sequences // rows)
    return sequences * of_sequence * of_sequence * (context + 1) // 2
