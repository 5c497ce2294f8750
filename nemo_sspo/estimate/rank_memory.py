"""What a rank holds at the peak of a training step, from the second one on, by what it is for.

    first part   weights in bf16, gradients in fp32, Adam's fp32 copy and moments, over the replicas where these are cut
    activations  of the layers of all microbatches that are under way: as many as stages are still to come, or with
                 interleaved stages twice that and all chunks of one more
    head         hidden states of response tokens and their gradient, a tile of logits, the weight's gradient in fp32
    workspaces   Transformer Engine's: for products, stand-ins of gradients, FP8 copies of weights

The peak is either at the head, or in the first layer that runs backward; without a head, there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from nemo_sspo.estimate.batch import Batch
from nemo_sspo.estimate.layer_memory import LayerMemory
from nemo_sspo.estimate.parameters import buffer_elements, matrices, trained, vocabulary_matrix, weights
from nemo_sspo.estimate.rank import TrainingRank
from nemo_sspo.estimate.traffic.said import BF16, FP8, FP32

_GPU_TILE = 4096
"""As `head/choice.py`."""
_ROWS_AT_ONCE = 16384
"""As `head/common.py`."""
_PRODUCTS = 32 * 2**20 + 1024
"""Workspace of cuBLAS."""
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
    parallel = rank.parallel
    shares = parallel.data * parallel.context if parallel.distributed_optimizer else 1
    elements = sum(buffer_elements(buffer, shares) for buffer in _buffers(rank))
    frozen = 0
    if rank.is_frozen:
        frozen = sum(_sum(weights(rank, chunk)) for chunk in range(rank.chunks))
    return (elements + frozen) * BF16, elements * FP32, _ADAM * elements // shares * FP32


def _sum(parts: Iterable[Iterable[int]]) -> int:
    return sum(sum(part) for part in parts)


def _buffers(rank: TrainingRank) -> list[list[int]]:
    """Each chunk's parameters; those of an embedding that stages share are in a buffer of their own."""
    found = []
    for chunk in range(rank.chunks):
        body, ends = trained(rank, chunk)
        found += [body, ends] if chunk == 0 and ends and rank.shares_embedding else [body + ends]
    return found


def _peak(rank: TrainingRank, batch: Batch) -> tuple[int, int]:
    """Activations and head, at the larger of the two moments."""
    layer, under_way = LayerMemory.of(rank, batch), microbatches_under_way(rank, batch)
    is_full = rank.train.recompute == "full"
    of_layer = layer.state if is_full else layer.kept
    kept = int(under_way * (rank.layers * of_layer + (0 if is_full else layer.state)))
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
    of_layer = sum(matrix.outputs * matrix.inputs for matrix in matrices(rank)) // rank.parallel.tensor
    stand_ins = of_layer * BF16 if rank.is_fused_gradient else 0
    scaled = 2 * FP8 * of_layer * max(0, rank.layers) if rank.fp8 else 0
    return _PRODUCTS + stand_ins + scaled
