"""The trained parameters of a rank's chunk, and what the optimizer says of their gradients.

A reduce-scatter of all gradients and an all-gather of this rank's share of the weights over dp_cp, for each chunk; with
an optimizer that is not cut, an all-reduce of the gradients. Where stages share one embedding, it is sent by itself if
it is in the rank's first chunk. Its gradients the first and the last stage sum before, as tp sums the norms' under
sequence parallelism, which are of the rank's own tokens, and the routers'.

Experts that ranks share whole ones of are in a buffer of their own, over the ranks that have the same ones. They have
an optimizer of their own too, and each of the two gathers all weights of the chunk.
"""

from __future__ import annotations

from nemo_sspo.estimate.batch import Batch
from nemo_sspo.estimate.parameters import (
    buffer_elements,
    expert_replicas,
    norms,
    replicas,
    router,
    trained,
    vocabulary_matrix,
)
from nemo_sspo.estimate.rank import TrainingRank
from nemo_sspo.estimate.traffic.said import BF16, EXPERT_REPLICAS, FP32, Said


def optimizer(said: Said, rank: TrainingRank, batch: Batch) -> None:
    is_end = rank.is_first or rank.is_last
    gathers = 2 if rank.model.mixture is not None and rank.parallel.expert > 1 else 1
    for chunk in range(rank.chunks):
        found = trained(rank, chunk)
        if chunk == 0 and found.ends and rank.shares_embedding:
            buffers = [found.layers, found.ends]
        else:
            buffers = [found.layers + found.ends]
        for parameters in buffers:
            _over_replicas(said, rank, parameters, "dp_cp", replicas(rank), gathers)
        if found.experts:
            _over_replicas(said, rank, found.experts, EXPERT_REPLICAS, expert_replicas(rank), gathers)
    if rank.shares_embedding and is_end and not rank.is_frozen:
        said.add("allreduce", "embedding", 1, vocabulary_matrix(rank) * FP32)
    if rank.parallel.sequence and not rank.is_frozen:
        of_norms = rank.layers * sum(norms(rank)) + rank.is_last * rank.model.hidden_size
        said.add("allreduce", "tp", 1, (of_norms + rank.mixed_layers * router(rank)) * FP32)
    # The norm of all gradients, each of which one rank alone has.
    is_cut = rank.parallel.distributed_optimizer
    said.add("allreduce", "INTRA_DISTRIBUTED_OPTIMIZER_INSTANCE_GROUP" if is_cut else "model", 1, FP32)


def _over_replicas(said: Said, rank: TrainingRank, parameters: list[int], group: str, ranks: int, gathers: int) -> None:
    count = buffer_elements(parameters, ranks)
    if not rank.parallel.distributed_optimizer:
        said.add("allreduce_coalesced", group, 1, count * FP32)
        return
    said.add("reduce_scatter_tensor_coalesced", group, 1, count * FP32)
    said.add("allgather_into_tensor_coalesced", group, gathers, count // ranks * BF16)
