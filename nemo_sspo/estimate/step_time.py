"""Seconds of an optimizer step, from what its slowest stage computes and sends, and a file of speeds.

microbatch   products and attention at their rates, behind what the tensor- and context-parallel ranks tell each other
schedule     a microbatch for each, and for each of the other stages one more, cut by the chunks of a stage: there
             every rank waits for the first and the last
step         the schedule, then gradients and weights over the replicas and the optimizer; where communication
             overlaps, the longer of both
"""

from __future__ import annotations

from dataclasses import dataclass

from nemo_sspo.estimate.batch import Batch
from nemo_sspo.estimate.flops import step_flops
from nemo_sspo.estimate.parameters import expert_replicas, held_parameters, replicas
from nemo_sspo.estimate.rank import TrainingRank, distinct_ranks
from nemo_sspo.estimate.speeds import Speeds
from nemo_sspo.estimate.traffic.said import EXPERT_CUTS, EXPERT_PARTS, EXPERT_REPLICAS, EXPERTS
from nemo_sspo.estimate.traffic.traffic import expected_traffic

_OPTIMIZER_BYTES = 30
"""Of a parameter that Adam reads and writes: its gradient, its fp32 copy, both moments, and the bf16 weight."""
_REFERENCE = 3
"""A training step's products are those of three forward passes."""


_INSIDE = ("tp", "cp", "pp", "world", EXPERTS, EXPERT_CUTS, EXPERT_PARTS)
"""Groups whose ranks work on the same microbatch."""


@dataclass(frozen=True)
class StepTime:
    """In seconds."""

    computing: float
    """Products and attention of all microbatches of the slowest stage."""
    inside: float
    """Between the ranks that share layers and sequences."""
    waiting: float
    """For other stages."""
    outside: float
    """Between replicas, as far as computation does not hide it, and the optimizer."""

    @property
    def total(self) -> float:
        return self.computing + self.inside + self.waiting + self.outside

    @property
    def waiting_share(self) -> float:
        """Of the step."""
        return self.waiting / self.total


def step_time(rank: TrainingRank, speeds: Speeds, gpus_per_node: int) -> StepTime:
    """Of all stages together; `rank` is any of the training's."""
    stages = [_stage(stage, speeds, gpus_per_node) for stage in distinct_ranks(rank)]
    computing, inside, _ = max(stages, key=lambda stage: stage[0] + stage[1])
    parallel, microbatches = rank.parallel, Batch.of(rank).microbatches
    waiting = (computing + inside) / microbatches * (parallel.pipeline - 1) / rank.chunks
    outside = max(stage[2] for stage in stages)
    if parallel.overlap_communication:
        outside = max(0.0, outside - computing)
    return StepTime(computing, inside, waiting, outside)


def reference_seconds(rank: TrainingRank, speeds: Speeds, gpus_per_node: int) -> float:
    """Of a step's pairs in the pass that computes reference log-probs: forward alone, without an optimizer."""
    step = step_time(rank, speeds, gpus_per_node)
    return (step.computing + step.inside + step.waiting) / _REFERENCE


def _stage(rank: TrainingRank, speeds: Speeds, gpus_per_node: int) -> tuple[float, float, float]:
    """Seconds of computing, of sending inside and of sending outside, of one rank's step."""
    batch = Batch.of(rank)
    flops, kind = step_flops(rank, batch), rank.precision.kind
    computing = flops.layers / speeds.products.of(kind) + flops.head / speeds.products.bf16
    computing += flops.attention / 2 / speeds.attention
    inside = outside = 0.0
    for name, size in expected_traffic(rank).bytes_sent.items():
        operation, group = name.split()
        ranks = _ranks_of(group, rank)
        seconds = _passes(operation, ranks) * size / _bandwidth(group, rank, speeds, gpus_per_node)
        if group in _INSIDE:
            inside += seconds
        else:
            outside += seconds
    return computing, inside, outside + held_parameters(rank) * _OPTIMIZER_BYTES / speeds.memory_bandwidth


def _passes(operation: str, ranks: int) -> float:
    """How often the bytes that a rank hands over pass its link, in a ring."""
    if operation.startswith("allgather"):
        return ranks - 1
    share = (ranks - 1) / ranks
    if operation.startswith("allreduce"):
        return 2 * share
    return share if operation.startswith(("reduce_scatter", "alltoall")) else 1


def _ranks_of(group: str, rank: TrainingRank) -> int:
    parallel = rank.parallel
    sizes = {
        **{"tp": parallel.tensor, "cp": parallel.context, "dp": parallel.data, "pp": parallel.pipeline},
        **{EXPERTS: parallel.expert, EXPERT_CUTS: parallel.expert_tensor},
        EXPERT_PARTS: parallel.expert * parallel.expert_tensor,
        EXPERT_REPLICAS: expert_replicas(rank),
    }
    return sizes.get(group, replicas(rank))


def _bandwidth(group: str, rank: TrainingRank, speeds: Speeds, gpus_per_node: int) -> float:
    """Of the links that a group's ranks have between them: NVLink where all of them are in one node."""
    parallel = rank.parallel
    reach = {
        "tp": parallel.tensor,
        "cp": parallel.tensor * parallel.context,
        "pp": parallel.world_size,
        "world": parallel.world_size,
        EXPERTS: parallel.expert_tensor * parallel.expert,
        EXPERT_CUTS: parallel.expert_tensor,
        EXPERT_PARTS: parallel.expert_tensor * parallel.expert,
    }.get(group, parallel.tensor * parallel.context * parallel.data)
    return speeds.in_node if reach <= gpus_per_node else speeds.between_nodes
