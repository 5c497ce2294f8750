"""The parameters of a rank's chunks, each one's size in elements.

Megatron's buffers begin each trained parameter at a multiple of 64, and end at one of their shares and of 128.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from nemo_sspo.estimate.rank import TrainingRank
from nemo_sspo.megatron.batches.row_shape import rounded_up

_START = 64
_END = 128


@dataclass(frozen=True)
class Matrix:
    """Of a layer, whole."""

    outputs: int
    inputs: int
    is_row_parallel: bool
    """Cut by its inputs rather than its outputs."""


def matrices(rank: TrainingRank) -> list[Matrix]:
    """Query-key-value, projection, gate-up and down of one layer."""
    model, tensor = rank.model, rank.parallel.tensor
    queries, keys = rank.queries * tensor, rank.keys * tensor
    return [
        Matrix(queries + 2 * keys, model.hidden_size, False),
        Matrix(model.hidden_size, queries, True),
        Matrix(2 * model.intermediate_size, model.hidden_size, False),
        Matrix(model.hidden_size, model.intermediate_size, True),
    ]


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


def trained(rank: TrainingRank, chunk: int) -> tuple[list[int], list[int]]:
    """Of a chunk: sizes of its layers' parameters, and of embedding and head."""
    if rank.is_frozen:
        return rank.layers // rank.chunks * adapters(rank), []
    return weights(rank, chunk)


def weights(rank: TrainingRank, chunk: int) -> tuple[list[int], list[int]]:
    """The policy's own of a chunk: sizes of its layers' parameters, and of embedding and head."""
    tensor = rank.parallel.tensor
    is_first, is_last = rank.is_first and chunk == 0, rank.is_last and chunk == rank.chunks - 1
    ends = is_first + is_last - (is_first and is_last and rank.model.tied)
    cut = [matrix.outputs * matrix.inputs // tensor for matrix in matrices(rank)]
    biases = [rank.queries + 2 * rank.keys] if rank.model.family.qkv_bias else []
    layer = cut + biases + norms(rank)
    return rank.layers // rank.chunks * layer + is_last * [rank.model.hidden_size], ends * [vocabulary_matrix(rank)]


def buffer_elements(parameters: Iterable[int], shares: int) -> int:
    """Elements of the buffer that holds their gradients, and their weights, which so many ranks share."""
    return rounded_up(sum(rounded_up(size, _START) for size in parameters), math.lcm(shares, _END))


def held_parameters(rank: TrainingRank) -> int:
    """Trained parameters of which this rank has the optimizer's state."""
    shares = rank.parallel.data * rank.parallel.context if rank.parallel.distributed_optimizer else 1
    return sum(sum(body) + sum(ends) for body, ends in (trained(rank, chunk) for chunk in range(rank.chunks))) // shares


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
    ends = 1 if rank.model.tied else 2
    layer = sum(matrix.outputs * matrix.inputs for matrix in matrices(rank)) + sum(norms(rank))
    biases = (rank.queries + 2 * rank.keys) * rank.parallel.tensor * rank.model.family.qkv_bias
    hidden = rank.model.hidden_size
    return rank.model.layers * (layer + biases) + hidden + ends * vocabulary_matrix(rank) * rank.parallel.tensor
