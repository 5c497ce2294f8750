"""Whether a training fits its GPUs: the fullest rank, with an allowance for what no ledger counts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain, product

from nemo_sspo.config.stages import Parallel
from nemo_sspo.estimate.parameters import expert_replicas
from nemo_sspo.estimate.rank import TrainingRank, distinct_ranks
from nemo_sspo.estimate.rank_memory import RankMemory, rank_memory
from nemo_sspo.estimate.speeds import Speeds
from nemo_sspo.estimate.step_time import StepTime, step_time
from nemo_sspo.megatron.models.layout import expert_problems, setting_problems

_GIB = 2**30
_CONTEXT = 0.6 * _GIB
"""CUDA's, and its libraries'."""
_COMMUNICATOR = 0.4 * _GIB
"""Of each group of ranks that NCCL serves."""
_FRAGMENTATION = 0.03
"""What torch reserves beyond what it has handed out."""
_SIZES = (1, 2, 4, 8, 16)
_EXPERT_RANKS = (1, 2, 4, 8, 16, 32, 64)
_CHUNKS = (None, 2, 4)
"""Model chunks of a pipeline stage that are tried: each halves the wait and sends more."""


@dataclass(frozen=True)
class Held:
    """Of the fullest rank."""

    rank: TrainingRank
    memory: RankMemory
    allowance: int
    """Assumed: CUDA's context, NCCL's buffers, fragmentation."""

    @property
    def total(self) -> int:
        return self.memory.total + self.allowance

    def fits(self, speeds: Speeds) -> bool:
        return self.total <= speeds.memory_gib * _GIB


def fullest(rank: TrainingRank) -> Held:
    """Of a training that `rank` is any rank of."""
    found = max(distinct_ranks(rank), key=lambda stage: rank_memory(stage).total)
    memory, parallel = rank_memory(found), rank.parallel
    sizes = [parallel.tensor, parallel.pipeline, parallel.context, parallel.data]
    if parallel.expert > 1:
        sizes += [parallel.expert, expert_replicas(rank)]
    groups = sum(size > 1 for size in sizes)
    allowance = _CONTEXT + (groups + (groups > 0)) * _COMMUNICATOR + _FRAGMENTATION * memory.total
    return Held(found, memory, int(allowance))


@dataclass(frozen=True)
class Layout:
    """A way to cut the training over the same GPUs."""

    parallel: Parallel
    recompute: str
    held: Held
    time: StepTime


def layouts_that_fit(full: TrainingRank, mean: TrainingRank, speeds: Speeds, gpus_per_node: int) -> list[Layout]:
    """Fastest first. `full`: with the longest rows; `mean`: with pairs of mean length."""
    found = []
    for parallel in _layouts(full, gpus_per_node):
        for recompute in ("none", "selective", "full"):
            of_full, of_mean = (_cut(rank, parallel, recompute) for rank in (full, mean))
            if (held := fullest(of_full)).fits(speeds):
                found.append(Layout(parallel, recompute, held, step_time(of_mean, speeds, gpus_per_node)))
                break  # more recomputation is slower
    return sorted(found, key=lambda layout: layout.time.total)


def _layouts(rank: TrainingRank, gpus_per_node: int) -> Iterator[Parallel]:
    world, mixture = rank.parallel.world_size, rank.model.mixture
    experts = [1] if mixture is None else [size for size in _EXPERT_RANKS if size <= mixture.experts]
    contexts = sorted({1, rank.parallel.context})
    for tensor, pipeline, context, expert in product(_SIZES, _SIZES, contexts, experts):
        if tensor > gpus_per_node or world % (tensor * pipeline * context) or world // pipeline % expert:
            continue
        for chunks in _CHUNKS if pipeline > 1 else (None,):
            parallel = rank.parallel.model_copy(
                update={
                    "tensor": tensor,
                    "pipeline": pipeline,
                    "virtual_pipeline": chunks,
                    "context": context,
                    "data": world // (tensor * pipeline * context),
                    "expert": expert,
                    "sequence": tensor > 1,
                }
            )
            if _is_possible(rank, parallel):
                yield parallel


def _is_possible(rank: TrainingRank, parallel: Parallel) -> bool:
    model, tensor = rank.model, parallel.tensor
    if model.layers % (parallel.pipeline * (parallel.virtual_pipeline or 1)):
        return False
    if model.groups % tensor or model.intermediate_size % tensor:
        return False
    of_experts = () if model.mixture is None else expert_problems(model.mixture, parallel)
    return not any(chain(of_experts, setting_problems(parallel, rank.train, rank.precision)))


def _cut(rank: TrainingRank, parallel: Parallel, recompute: str) -> TrainingRank:
    return replace(rank, parallel=parallel, train=rank.train.model_copy(update={"recompute": recompute}), number=0)
