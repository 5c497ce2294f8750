"""The trained parameters of a rank's chunk, and what the optimizer says of their gradients.

A reduce-scatter of all gradients and an all-gather of this rank's share of the weights over dp_cp, for each chunk; with
an optimizer that is not cut, an all-reduce of the gradients. Where stages share one embedding, it is sent by itself if
it is in the rank's first chunk. Its gradients the first and the last stage sum before, as tp sums the norms' under
sequence parallelism, which are of the rank's own tokens.
"""

from __future__ import annotations

from nemo_sspo.estimate.batch import Batch
from nemo_sspo.estimate.parameters import buffer_elements, norms, trained, vocabulary_matrix
from nemo_sspo.estimate.rank import TrainingRank
from nemo_sspo.estimate.traffic.said import BF16, FP32, Said


def optimizer(said: Said, rank: TrainingRank, batch: Batch) -> None:
    is_end = rank.is_first or rank.is_last
    for chunk in range(rank.chunks):
        body, vocabulary = trained(rank, chunk)
        if chunk == 0 and vocabulary and rank.shares_embedding:
            _shared_over_replicas(said, rank, body)
            _shared_over_replicas(said, rank, vocabulary)
        else:
            _shared_over_replicas(said, rank, body + vocabulary)
    if rank.shares_embedding and is_end and not rank.is_frozen:
        said.add("allreduce", "embedding", 1, vocabulary_matrix(rank) * FP32)
    if rank.parallel.sequence and not rank.is_frozen:
        of_norms = rank.layers * sum(norms(rank)) + rank.is_last * rank.model.hidden_size
        said.add("allreduce", "tp", 1, of_norms * FP32)
    # The norm of all gradients, each of which one rank alone has.
    is_cut = rank.parallel.distributed_optimizer
    said.add("allreduce", "INTRA_DISTRIBUTED_OPTIMIZER_INSTANCE_GROUP" if is_cut else "model", 1, FP32)


def _shared_over_replicas(said: Said, rank: TrainingRank, parameters: list[int]) -> None:
    shares = rank.parallel.data * rank.parallel.context
    count = buffer_elements(parameters, shares)
    if not rank.parallel.distributed_optimizer:
        said.add("allreduce_coalesced", "dp_cp", 1, count * FP32)
        return
    said.add("reduce_scatter_tensor_coalesced", "dp_cp", 1, count * FP32)
    said.add("allgather_into_tensor_coalesced", "dp_cp", 1, count // shares * BF16)
