"""The parameters of a rank's chunks, each one's size in elements.

Megatron's buffers begin each trained parameter at a multiple of 64, and end at one of their shares and of 128.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from nemo_sspo.estimate.rank import TrainingRank
from nemo_sspo.megatron.batches.row_shape import rounded_up
from nemo_sspo.megatron.models.feed_forward import Mixture

_START = 64
_END = 128


@dataclass(frozen=True)
class Matrix:
    """Of a layer, whole."""

    outputs: int
    inputs: int
    is_row_parallel: bool
    """Cut by its inputs rather than its outputs."""

    @property
    def size(self) -> int:
        return self.outputs * self.inputs


@dataclass(frozen=True)
class Parameters:
    """Of a chunk: each one's size."""

    layers: list[int]
    ends: list[int]
    """Embedding and head."""
    experts: list[int]
    """Those that ranks share whole ones of, whose gradients fewer ranks sum."""

    def __iter__(self) -> Iterator[int]:
        return chain(self.layers, self.ends, self.experts)


def attention(rank: TrainingRank) -> list[Matrix]:
    """Query-key-value and projection of one layer."""
    hidden, tensor = rank.model.hidden_size, rank.parallel.tensor
    queries, keys = rank.queries * tensor, rank.keys * tensor
    return [Matrix(queries + 2 * keys, hidden, False), Matrix(hidden, queries, True)]


def feed_forward(rank: TrainingRank, channels: int) -> list[Matrix]:
    """Gate-up and down, of one layer or expert with so many inner channels."""
    hidden = rank.model.hidden_size
    return [Matrix(2 * channels, hidden, False), Matrix(hidden, channels, True)]


def matrices(rank: TrainingRank) -> list[Matrix]:
    """Of one dense layer."""
    return attention(rank) + feed_forward(rank, rank.model.intermediate_size)


def router(rank: TrainingRank) -> int:
    """Of a mixture's layer; no rank has a part of it."""
    return 0 if rank.model.mixture is None else rank.model.mixture.experts * rank.model.hidden_size


def expert(mixture: Mixture, rank: TrainingRank) -> list[Matrix]:
    """Of one expert."""
    return feed_forward(rank, mixture.intermediate_size)


def norms(rank: TrainingRank) -> list[int]:
    """Of a layer: before attention and MLP, where a family has sandwich norms also behind them, and those of a head's
    query and key."""
    family, hidden = rank.model.family, rank.model.hidden_size
    of_layer = sum("norm" in name for name in family.layer)
    return of_layer * [hidden] + (2 * [rank.model.head_dim] if family.qk_norm else [])


def vocabulary_matrix(rank: TrainingRank) -> int:
    """This rank's rows of the embedding, or of the head."""
    return rank.vocabulary * rank.model.hidden_size


def adapters(rank: TrainingRank) -> list[int]:
    """A and B of each matrix of a layer: cut are A's rank or inputs, and B's outputs."""
    size, tensor = rank.train.lora_rank, rank.parallel.tensor
    return [channels * size // tensor for matrix in matrices(rank) for channels in (matrix.inputs, matrix.outputs)]


def trained(rank: TrainingRank, chunk: int) -> Parameters:
    """Of a chunk."""
    if rank.is_frozen:
        return Parameters(rank.layers // rank.chunks * adapters(rank), [], [])
    return weights(rank, chunk)


def weights(rank: TrainingRank, chunk: int) -> Parameters:
    """The policy's own of a chunk."""
    is_first, is_last = rank.is_first and chunk == 0, rank.is_last and chunk == rank.chunks - 1
    ends = is_first + is_last - (is_first and is_last and rank.model.tied)
    biases = [rank.queries + 2 * rank.keys] if rank.model.family.qkv_bias else []
    layer = _cut(attention(rank), rank.parallel.tensor) + biases + norms(rank)
    mixed, count = rank.mixtures(chunk), rank.layers // rank.chunks
    dense = _cut(feed_forward(rank, rank.model.intermediate_size), rank.parallel.tensor)
    layers = count * layer + (count - mixed) * dense + is_last * [rank.model.hidden_size]
    experts = []
    if (mixture := rank.model.mixture) is not None:
        layers += mixed * [router(rank)]
        of_expert = _cut(expert(mixture, rank), rank.parallel.expert_tensor)
        experts = mixed * (mixture.experts // rank.parallel.expert) * of_expert
    if rank.parallel.expert == 1:
        layers, experts = layers + experts, []
    return Parameters(layers, ends * [vocabulary_matrix(rank)], experts)


def _cut(found: Iterable[Matrix], ranks: int) -> list[int]:
    return [matrix.size // ranks for matrix in found]


def buffer_elements(parameters: Iterable[int], shares: int) -> int:
    """Elements of the buffer that holds their gradients, and their weights, which so many ranks share."""
    return rounded_up(sum(rounded_up(size, _START) for size in parameters), math.lcm(shares, _END))


def replicas(rank: TrainingRank) -> int:
    """Ranks that hold the same layers, but for their experts."""
    return rank.parallel.data * rank.parallel.context


def expert_replicas(rank: TrainingRank) -> int:
    """Ranks that hold the same experts, or the same part of each."""
    parallel = rank.parallel
    return parallel.tensor * parallel.context * parallel.data // (parallel.expert * parallel.expert_tensor)


def held_parameters(rank: TrainingRank) -> int:
    """Trained parameters of which this rank has the optimizer's state."""
    found = [trained(rank, chunk) for chunk in range(rank.chunks)]
    layers, experts = sum(sum(each.layers + each.ends) for each in found), sum(sum(each.experts) for each in found)
    if not rank.parallel.distributed_optimizer:
        return layers + experts
    return layers // replicas(rank) + experts // expert_replicas(rank)


def trained_parameters(rank: TrainingRank) -> int:
    """Of the whole policy: all, or its adapters."""
    if not rank.is_frozen:
        return policy_parameters(rank)
    return rank.model.layers * sum(adapters(rank)) * rank.parallel.tensor


def state_bytes(rank: TrainingRank) -> int:
    """At most, of a state to resume from: bf16 weights, and of what is trained the fp32 copy and Adam's moments."""
    return 2 * policy_parameters(rank) + 12 * trained_parameters(rank)


def policy_parameters(rank: TrainingRank) -> int:
    """Of the whole policy, the vocabulary's padding among them."""
    model = rank.model
    layer = _cut(attention(rank), 1) + norms(rank)
    biases = (rank.queries + 2 * rank.keys) * rank.parallel.tensor * model.family.qkv_bias
    ends = (1 if model.tied else 2) * vocabulary_matrix(rank) * rank.parallel.tensor
    mixture = model.mixture
    mixed = 0 if mixture is None else sum(mixture.layers)
    dense = (model.layers - mixed) * sum(_cut(feed_forward(rank, model.intermediate_size), 1))
    found = model.layers * (sum(layer) + biases) + dense + model.hidden_size + ends
    if mixture is None:
        return found
    return found + mixed * (router(rank) + mixture.experts * sum(_cut(expert(mixture, rank), 1)))


def active_parameters(rank: TrainingRank) -> int:
    """Of the policy those that a token meets: of a mixture its own experts'."""
    mixture = rank.model.mixture
    if mixture is None:
        return policy_parameters(rank)
    left_out = sum(mixture.layers) * (mixture.experts - mixture.experts_per_token)
    return policy_parameters(rank) - left_out * sum(_cut(expert(mixture, rank), 1))
