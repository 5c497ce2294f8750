"""One rank of a parity run: the real Megatron model, schedule and data parallelism over gloo.

`run_cases(layout, cases)` forks the ranks once and runs all cases in them; each rank builds the model with its shards
of `world.weights`, runs one step per case, and hands back its gradients. The parent puts the full ones together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.distributed import DistributedDataParallel
from megatron.core.models.gpt import GPTModel
from megatron.core.pipeline_parallel import get_forward_backward_func
from megatron.core.tensor_parallel import model_parallel_cuda_manual_seed
from torch import Tensor

from nemo_sspo.megatron.batches.microbatch import (
    Microbatch,
    PreferencePair,
    RowShape,
    context_parallel_slice,
    packed_microbatch,
    padded_microbatch,
    shared_prompt_microbatch,
)
from nemo_sspo.megatron.batches.microbatch_plan import PreparedMicrobatch
from nemo_sspo.megatron.layers.core_attention import CoreAttention, LocalCoreAttention
from nemo_sspo.megatron.loss.hidden_states import forward_to_hidden_states, output_weight, unwrap
from nemo_sspo.megatron.loss.loss import HeadLayout, PreferenceObjective, microbatch_logps
from nemo_sspo.megatron.loss.metrics import PairMetrics, sum_metrics
from nemo_sspo.megatron.loss.step import TrainingLoss
from nemo_sspo.megatron.models.finite import StepPairs
from nemo_sspo.megatron.runtime.cpu_runtime import cpu_runtime
from nemo_sspo.megatron.runtime.forked_ranks import run_forked
from nemo_sspo.megatron.runtime.groups import Groups
from nemo_sspo.objective.losses import sppo
from nemo_sspo.objective.repulsion import euclidean
from tests.distributed import world
from tests.distributed.architectures import LLAMA, Architecture
from tests.distributed.tiny_model import build, cut_dimension, cut_rank, named_parameters
from tests.distributed.world import Layout

TIMEOUT = 90.0


@dataclass(frozen=True)
class Case:
    """One step on one global batch, and how it is laid out."""

    name: str
    architecture: Architecture = LLAMA
    tied: bool = False
    packed: bool = False
    micro_batch_size: int = 1
    pairs: Sequence[PreferencePair] = field(default_factory=world.pairs)
    pooling: str = "last"
    preference_weight: float = 1.0
    repulsion_weight: float = world.REPULSION_WEIGHT
    at_reference: bool = False
    """Take the reference from a forward pass of this very model, as the reference stage does: d = 0."""
    fault: Callable[[], AbstractContextManager] = nullcontext
    """Entered in every rank around the step: a planted fault."""
    reference_fault: Callable[[GPTModel], AbstractContextManager] = nullcontext
    """Entered around the reference's forward pass only."""
    dropout: float = 0.0
    one_pass: bool = False
    """The head that computes gradients while the logits exist."""
    shared: bool = False
    """Packed, each prompt once for both responses."""
    attention: type[CoreAttention] = LocalCoreAttention


@dataclass(frozen=True)
class Result:
    """Of a whole layout: metrics and reference log-probs of the last stage, full gradients by global name."""

    metrics: dict[str, float]
    grads: dict[str, Tensor]


@dataclass(frozen=True)
class _Shard:
    """A parameter's gradient on one rank. `cut`: dimension over tensor-parallel ranks, or None if replicated."""

    grad: Tensor
    cut: int | None
    part: int


@dataclass(frozen=True)
class _RankResult:
    metrics: dict[str, float] | None
    shards: dict[str, _Shard]


def run_cases(layout: Layout, cases: Sequence[Case]) -> dict[str, Result]:
    """Run the cases in one set of forked ranks. Results by case name."""
    per_rank = run_forked(partial(_rank, layout, cases), layout.world_size, timeout=TIMEOUT)
    return {case.name: _gather([results[number] for results in per_rank]) for number, case in enumerate(cases)}


def _rank(layout: Layout, cases: Sequence[Case]) -> list[_RankResult]:
    with cpu_runtime():
        dist.init_process_group("gloo")
        parallel_state.initialize_model_parallel(
            layout.tensor,
            layout.pipeline,
            virtual_pipeline_model_parallel_size=layout.virtual,
            context_parallel_size=layout.context,
            expert_model_parallel_size=layout.expert,
            expert_tensor_parallel_size=layout.expert_tensor,
        )
        model_parallel_cuda_manual_seed(1)
        models: dict[tuple[Any, ...], list[DistributedDataParallel]] = {}
        results = []
        for case in cases:
            key = (case.architecture, case.tied, case.dropout, case.attention)
            if key not in models:
                architecture, tied, dropout, attention = key
                models[key] = build(layout, tied=tied, dropout=dropout, architecture=architecture, attention=attention)
            with case.fault():
                results.append(Step(layout, case, models[key]).run())
        dist.destroy_process_group()
    return results


def _gather(ranks: Sequence[_RankResult]) -> Result:
    """Full gradients from all ranks' shards. Replicas must agree to the last bit, or an all-reduce was missed."""
    grads: dict[str, Tensor] = {}
    for name in sorted({name for rank in ranks for name in rank.shards}):
        shards: dict[int, _Shard] = {}
        for shard in (rank.shards[name] for rank in ranks if name in rank.shards):
            slot = shard.part if shard.cut is not None else 0
            first = shards.setdefault(slot, shard)
            if not torch.equal(first.grad, shard.grad):
                raise AssertionError(f"{name}: replicas differ by {(first.grad - shard.grad).abs().max():.2e}")
        parts = [shards[slot] for slot in sorted(shards)]
        if name.endswith("linear_fc1.weight"):
            grads[name] = torch.cat([part.grad.chunk(2)[half] for half in range(2) for part in parts])
        else:
            grads[name] = torch.cat([part.grad for part in parts], dim=parts[0].cut or 0)
    metrics = [rank.metrics for rank in ranks if rank.metrics is not None]
    if any(other != metrics[0] for other in metrics):
        raise AssertionError(f"the last stage's ranks report different metrics: {metrics}")
    return Result(metrics[0], grads)


class Step:
    """One forward-backward over a global batch, in this rank."""

    def __init__(self, layout: Layout, case: Case, models: list[DistributedDataParallel]) -> None:
        self.layout, self.case, self.models = layout, case, models
        self.groups = Groups.of_megatron()
        self.head = HeadLayout.of(
            unwrap(models[0]).config,
            self.groups,
            vocab_size=world.VOCAB,
            chunk_tokens=5,
            one_pass=case.one_pass,
        )
        objective = PreferenceObjective(
            lambda pairs: case.preference_weight * sppo(pairs, eta=world.ETA),
            euclidean,
            case.pooling,
        )
        self.loss = TrainingLoss(objective, lambda _: case.repulsion_weight, self.head, self.groups.dp, StepPairs())

    def run(self) -> _RankResult:
        microbatches = self.microbatches()
        if self.case.at_reference:
            microbatches = self._with_own_reference(microbatches)
        for model in self.models:
            model.zero_grad_buffer()
        kept = self._schedule(microbatches, partial(self._loss, len(microbatches)), forward_only=False)
        # Only the last stage has kept anything.
        metrics = sum_metrics(kept, self.groups.dp) if kept else None
        shards = {
            name: _Shard(parameter.main_grad.clone(), cut_dimension(parameter), cut_rank(name))
            for model in self.models
            for name, parameter in named_parameters(unwrap(model))
        }
        return _RankResult(metrics, shards)

    def microbatches(self) -> list[Microbatch]:
        """This replica's share of the pairs; weight-0 copies of the first pair fill the last microbatches up."""
        case, replicas = self.case, self.layout.data
        slots = case.micro_batch_size * replicas * (self.layout.pipeline if self.layout.virtual else 1)
        filler = -len(case.pairs) % slots
        pairs = [*case.pairs, *[case.pairs[0]] * filler]
        weights = [1 / len(case.pairs)] * len(case.pairs) + [0.0] * filler
        size = case.micro_batch_size
        made = []
        for start in range(size * dist.get_rank(self.groups.dp), len(pairs), size * replicas):
            build = packed_microbatch if case.packed else padded_microbatch
            build = shared_prompt_microbatch if case.shared else build
            microbatch = build(pairs[start : start + size], weights[start : start + size], self._row_shape())
            made.append(context_parallel_slice(microbatch, dist.get_rank(self.groups.cp), self.layout.context))
        return made

    def _row_shape(self) -> RowShape:
        layout, case = self.layout, self.case
        length = world.PACKED_TOKENS_PER_PAIR * case.micro_batch_size if case.packed else world.PADDED_ROW
        return RowShape.for_layout(
            tensor=layout.tensor, context=layout.context, sequence_parallel=layout.sequence, length=length
        )

    def _schedule(self, microbatches: list[Microbatch], loss: Callable, *, forward_only: bool) -> list:
        def forward_step(iterator: Iterator[Microbatch], model: DistributedDataParallel) -> tuple[Tensor, Callable]:
            microbatch = next(iterator)
            return forward_to_hidden_states(model, microbatch), partial(loss, model, microbatch)

        iterators = [iter(microbatches) for _ in self.models]
        return get_forward_backward_func()(
            forward_step_func=forward_step,
            data_iterator=iterators if self.layout.virtual else iterators[0],
            model=self.models if self.layout.virtual else self.models[0],
            num_microbatches=len(microbatches),
            seq_length=self._row_shape().length,
            micro_batch_size=1 if self.case.packed else 2 * self.case.micro_batch_size,
            forward_only=forward_only,
        )

    def _loss(
        self, num_microbatches: int, model: GPTModel, microbatch: Microbatch, hidden_SBH: Tensor
    ) -> tuple[Tensor, PairMetrics]:
        prepared = PreparedMicrobatch(microbatch, rows=(), step=0, num_microbatches=num_microbatches)
        return self.loss(hidden_SBH, output_weight(model), prepared)

    def _with_own_reference(self, microbatches: list[Microbatch]) -> list[Microbatch]:
        def logps(model: GPTModel, microbatch: Microbatch, hidden_SBH: Tensor) -> tuple[Tensor, Tensor]:
            kept = microbatch_logps(hidden_SBH, output_weight(model), microbatch, self.head)
            return kept.sum(), kept

        with torch.no_grad(), self.case.reference_fault(unwrap(self.models[-1])):
            reference = self._schedule(microbatches, logps, forward_only=True)
        if not reference:  # not the last stage: nobody reads it here
            return microbatches
        return [replace(m, ref_logps_P2=r) for m, r in zip(microbatches, reference, strict=True)]
