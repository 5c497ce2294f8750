"""What a rank holds at the peak of a training step, from the second one on, by what it is for.

    first part   weights in bf16, gradients in fp32, Adam's fp32 copy and moments, over the replicas where these are cut
    activations  of the layers of all microbatches that are under way: as many as stages are still to come, or with
                 interleaved stages twice that and all chunks of one more
    head         hidden states of response tokens and their gradient, a tile of logits, the weight's gradient in fp32
    workspaces   Transformer Engine's: for products, stand-ins of gradients, FP8 copies of weights

The peak is either at the head, or in the first layer that runs backward; without a head, there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nemo_sspo.estimate.batch import Batch
from nemo_sspo.estimate.layer_memory import LayerMemory
from nemo_sspo.estimate.parameters import (
    attention,
    buffer_elements,
    expert_replicas,
    matrices,
    replicas,
    trained,
    vocabulary_matrix,
    weights,
)
from nemo_sspo.estimate.rank import TrainingRank
from nemo_sspo.estimate.traffic.said import BF16, FP8, FP32

_GPU_TILE = 4096
"""As `head/choice.py`."""
_ROWS_AT_ONCE = 16384
"""As `head/common.py`."""
_PRODUCTS = 32 * 2**20 + 1024
"""Workspace of cuBLAS."""
_GROUPED = 4 * 32 * 2**20
"""The same of experts, whose products run on four streams."""
_ADAM = 3
"""The fp32 copy of a weight and two moments."""


@dataclass(frozen=True)
class RankMemory:
    """In bytes."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    head: int
    workspaces: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations + self.head + self.workspaces


def rank_memory(rank: TrainingRank) -> RankMemory:
    """At the peak of a step. It leaves out what NCCL, kernels, the CUDA context and fragmentation take."""
    batch = Batch.of(rank)
    activations, head = _peak(rank, batch)
    return RankMemory(*_held(rank), activations, head, _workspaces(rank))


def _held(rank: TrainingRank) -> tuple[int, int, int]:
    """Weights, gradients and optimizer."""
    frozen = sum(map(sum, (weights(rank, chunk) for chunk in range(rank.chunks)))) if rank.is_frozen else 0
    is_cut = rank.parallel.distributed_optimizer
    whole = optimizer = 0
    for buffer, ranks in _buffers(rank):
        elements = buffer_elements(buffer, ranks if is_cut else 1)
        whole += elements
        optimizer += _ADAM * elements // (ranks if is_cut else 1) * FP32
    return (whole + frozen) * BF16, whole * FP32, optimizer


def _buffers(rank: TrainingRank) -> Iterator[tuple[list[int], int]]:
    """Each chunk's parameters, and how many ranks have the same. Experts, and an embedding that stages share, are in
    buffers of their own."""
    for chunk in range(rank.chunks):
        found = trained(rank, chunk)
        if chunk == 0 and found.ends and rank.shares_embedding:
            yield found.layers, replicas(rank)
            yield found.ends, replicas(rank)
        else:
            yield found.layers + found.ends, replicas(rank)
        yield found.experts, expert_replicas(rank)


def _peak(rank: TrainingRank, batch: Batch) -> tuple[int, int]:
    """Activations and head, at the larger of the two moments."""
    dense, under_way = LayerMemory.of(rank, batch), microbatches_under_way(rank, batch)
    mixture, mixed = rank.model.mixture, rank.mixed_layers
    layer = dense if mixture is None else LayerMemory.of_mixture(rank, batch, mixture)
    is_full = rank.train.recompute == "full"
    of_layers = rank.layers * layer.state if is_full else (rank.layers - mixed) * dense.kept + mixed * layer.kept
    kept = int(under_way * (of_layers + (0 if is_full else layer.state)))
    backward = kept + layer.grown + layer.state + (layer.kept if is_full else 0)
    if not rank.is_last:
        return backward - (0 if is_full else int(under_way * layer.state)), 0
    head = _head(rank, batch)
    at_head = kept + layer.state
    return (at_head, head) if at_head + head >= backward - layer.state else (backward - layer.state, 0)


def microbatches_under_way(rank: TrainingRank, batch: Batch) -> float:
    """That have run forward on this rank and not yet backward; where they have run through some of its chunks, a part
    of one."""
    stages, chunks = rank.parallel.pipeline, rank.chunks
    if chunks == 1:
        return min(stages - rank.stage, batch.microbatches)
    ahead = 2 * (stages - rank.stage - 1) + (chunks - 1) * stages + 1
    return min(ahead, batch.microbatches * chunks) / chunks


def _head(rank: TrainingRank, batch: Batch) -> int:
    hidden, rows = rank.model.hidden_size, rank.vocabulary
    scored = sum(batch.scored)
    tile = min(scored, rank.train.head_chunk_tokens or _GPU_TILE)
    states, logits = 2 * scored * hidden * BF16, tile * rows * BF16
    of_weight = 0 if rank.is_frozen else vocabulary_matrix(rank) * FP32 + min(_ROWS_AT_ONCE, rows) * hidden * BF16
    return states + logits + of_weight


def _workspaces(rank: TrainingRank) -> int:
    multiplied = matrices(rank) if rank.mixed_layers < rank.layers else attention(rank)
    of_layer = sum(matrix.size for matrix in multiplied) // rank.parallel.tensor
    stand_ins = of_layer * BF16 if rank.is_fused_gradient else 0
    scaled = 2 * FP8 * of_layer * max(0, rank.layers) if rank.fp8 else 0
    return _PRODUCTS + stand_ins + scaled + (_GROUPED if rank.mixed_layers else 0)
