"""One iteration's training on this rank: a loop over Megatron's schedule and optimizer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import torch
import torch.distributed as dist
from megatron.core.distributed import DistributedDataParallel, finalize_model_grads
from megatron.core.models.gpt import GPTModel
from megatron.core.optimizer import MegatronOptimizer
from megatron.core.tensor_parallel.layers import set_defaults_if_not_set_tensor_model_parallel_attributes
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import nn

from nemo_sspo.megatron.batches.batch_plan import steps_per_epoch
from nemo_sspo.megatron.batches.fit import require_fit
from nemo_sspo.megatron.batches.microbatch_plan import MicrobatchPlan
from nemo_sspo.megatron.batches.row_shape import token_multiple
from nemo_sspo.megatron.binding import Observer
from nemo_sspo.megatron.checkpoints.adapter_files import save_part
from nemo_sspo.megatron.checkpoints.states import newest_whole_state
from nemo_sspo.megatron.checkpoints.weights import load_weights, save_weights
from nemo_sspo.megatron.core.policy import in_precision, policy_chunks, policy_head
from nemo_sspo.megatron.core.schedule import Schedule
from nemo_sspo.megatron.core.states import StateFiles
from nemo_sspo.megatron.jobs import StepResult, TrainingJob
from nemo_sspo.megatron.layers.adapter import Adapters
from nemo_sspo.megatron.layers.lora import add_adapters, merged_adapters, whole_adapters
from nemo_sspo.megatron.loss.hidden_states import unwrap
from nemo_sspo.megatron.loss.metrics import share_metrics, sum_metrics
from nemo_sspo.megatron.loss.step import TrainingLoss
from nemo_sspo.megatron.models.finite import StepPairs, naming_the_pairs
from nemo_sspo.megatron.optimizer.learning_rate import schedule as rate_schedule
from nemo_sspo.megatron.optimizer.megatron import make_optimizer, set_learning_rate
from nemo_sspo.megatron.optimizer.settings import data_parallel_config, optimizer_config
from nemo_sspo.megatron.optimizer.torch_adam import torch_adam_resumes
from nemo_sspo.megatron.runtime.cpu_runtime import cpu_runtime
from nemo_sspo.megatron.runtime.groups import Groups, connect


@dataclass
class CoreTraining:
    """`LiveTraining` of the loop below."""

    trainer: ClassVar[str] = "core"
    chunks: Sequence[DistributedDataParallel]
    optimizer: MegatronOptimizer
    files: StateFiles
    schedule: Schedule
    loss: TrainingLoss
    rate: Callable[[int], float]
    """Learning rate at a 0-based step."""
    step: int = 0
    result: StepResult = field(init=False)

    @property
    def config(self) -> TransformerConfig:
        return self.chunks[0].config

    @property
    def step_pairs(self) -> StepPairs:
        return self.schedule.step_pairs

    @property
    def _modules(self) -> list[GPTModel]:
        return [unwrap(chunk) for chunk in self.chunks]

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        for module in self._modules:
            yield from module.named_parameters()

    def resume(self, state: Path | None) -> None:
        """Go on from a state, or begin where there is none. Collective."""
        if state is not None:
            self.step = self.files.load(state)

    def take_step(self) -> None:
        """Forward, backward and the update of one global batch. Collective."""
        started, groups = time.monotonic(), self.schedule.groups
        for chunk in self.chunks:
            chunk.zero_grad_buffer()
        self.optimizer.zero_grad()
        rate = self.rate(self.step)
        set_learning_rate(self.optimizer, rate)
        kept = self.schedule.run(self.step, self.loss)
        # The last pipeline stage alone has kept anything.
        metrics = share_metrics(sum_metrics(kept, groups.dp) if kept else None, groups.pp)
        _, grad_norm, _ = self.optimizer.step()
        self.step += 1
        norm = torch.as_tensor(grad_norm, dtype=torch.float32)
        self.result = StepResult(metrics, norm, torch.tensor(rate), started)

    def save_weights(self, directory: Path) -> None:
        # Drain the state's writes first: both saves share one queue, and the state's results would index the weights.
        self.finish_saving()
        self._gather_parameters()
        with ExitStack() as stack:
            for module in self._modules:
                stack.enter_context(merged_adapters(module))
            save_weights(self._modules, directory)
        if adapters := {name: pair for module in self._modules for name, pair in whole_adapters(module).items()}:
            save_part(adapters, directory)
        dist.barrier()

    def save_state(self, directory: Path, written: Callable[[], None]) -> None:
        self._gather_parameters()
        self.files.save(directory, self.step, written)

    def finish_saving(self) -> None:
        self.files.finish(wait=True)

    def _gather_parameters(self) -> None:
        """Other data-parallel ranks' updates of the last step may arrive only with the next forward pass."""
        for chunk in self.chunks:
            if chunk.ddp_config.overlap_param_gather:
                chunk.start_param_sync(force_sync=True)


def train_rank(job: TrainingJob, observers: Sequence[Observer]) -> None:
    """Train on this rank; every rank of the layout calls it, and leaves it when all are done.

    Continues from the newest complete state in `job.scratch`, if there is one.
    """
    require_fit(job.pairs, job.hf_dir)
    steps = len(job.batches)
    with cpu_runtime(), torch_adam_resumes():
        training = _training(job, connect(job.parallel))
        training.resume(newest_whole_state(job.scratch, training.trainer))
        try:
            for observer in observers:
                observer.on_start(training)
            while training.step < steps:
                with naming_the_pairs(training.step + 1, training.step_pairs):
                    training.take_step()
                for observer in observers:
                    observer.on_step(training)
                training.files.finish(wait=False)
            training.finish_saving()
            for observer in observers:
                observer.on_end(training, None)
        except BaseException as error:
            for observer in observers:
                observer.on_end(training, error)
            raise
        dist.barrier()


def _training(job: TrainingJob, groups: Groups) -> CoreTraining:
    train = job.train
    modules = policy_chunks(job.hf_dir, job.parallel, job.precision, train, groups)
    load_weights(modules, job.weights)
    if train.peft is not None:
        adapters = Adapters(train.lora_rank, train.lora_alpha, job.seed)
        for module in modules:
            add_adapters(module, adapters, groups.tp)
    chunks = _data_parallel(modules, job)
    optimizer = make_optimizer(optimizer_config(train, job.precision, job.parallel), chunks)
    plan = MicrobatchPlan(job.pairs, job.batches, train, job.parallel, token_multiple(job.precision))
    step_pairs = StepPairs(job.pairs.pair_ids)
    head = policy_head(modules[0].config, groups, job.hf_dir, train, separable=job.objective.separable)
    factor = rate_schedule(train, steps_per_epoch(len(job.pairs), train.global_batch_size))
    return CoreTraining(
        chunks,
        optimizer,
        StateFiles(modules, optimizer, reshardable=job.parallel.distributed_optimizer),
        Schedule(chunks, plan, groups, step_pairs),
        TrainingLoss(job.objective, job.weight_at, head, groups.dp, step_pairs),
        lambda step: train.learning_rate * factor(step),
    )


def _data_parallel(modules: Sequence[GPTModel], job: TrainingJob) -> list[DistributedDataParallel]:
    """The chunks with the buffers in which replicas sum gradients, and what Megatron's schedule calls of them."""
    settings, config = data_parallel_config(job.parallel), modules[0].config
    for module in modules:
        for parameter in module.parameters():
            set_defaults_if_not_set_tensor_model_parallel_attributes(parameter)
    # No stream waits for the other: weights still on their way would be copied into the buffers that training reads.
    torch.cuda.synchronize()
    chunks = [
        # Buckets are for sending gradients early, which a later chunk's pass backward covers anyway.
        DistributedDataParallel(config, settings, in_precision(module), disable_bucketing=number > 0)
        for number, module in enumerate(modules)
    ]
    torch.cuda.synchronize()
    config.finalize_model_grads_func = finalize_model_grads
    if settings.overlap_grad_reduce:
        functions = [chunk.no_sync for chunk in chunks]
        config.no_sync_func = functions if len(functions) > 1 else functions[0]
    return chunks
