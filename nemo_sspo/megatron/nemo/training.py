"""One iteration's training on this rank: the policy's weights in, the new policy's weights and metrics out."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import torch.distributed as dist
from nemo.lightning.pytorch.strategies import MegatronStrategy
from typing_extensions import override

from nemo_sspo.artifacts.manifest import digest_of
from nemo_sspo.artifacts.progress import Progress
from nemo_sspo.config.stages import Parallel, Train
from nemo_sspo.config.variants import Precision
from nemo_sspo.megatron.batches.batch_plan import GlobalBatch, candidate_steps, shuffled, steps_per_epoch
from nemo_sspo.megatron.batches.fit import require_fit
from nemo_sspo.megatron.batches.microbatch_plan import MicrobatchPlan
from nemo_sspo.megatron.batches.pairs import PairTable
from nemo_sspo.megatron.checkpoints.state_files import hash_while_writing, seal
from nemo_sspo.megatron.checkpoints.weights import save_weights
from nemo_sspo.megatron.head.choice import choose_head, head_tile
from nemo_sspo.megatron.loss.hidden_states import unwrap
from nemo_sspo.megatron.loss.loss import PreferenceObjective
from nemo_sspo.megatron.models.families import read_hf_config
from nemo_sspo.megatron.models.finite import StepNumbers
from nemo_sspo.megatron.models.flops import ModelFlops, peak_flops_here
from nemo_sspo.megatron.nemo.cpu import nemo_cpu_runtime
from nemo_sspo.megatron.nemo.data import PairDataModule
from nemo_sspo.megatron.nemo.loggers import build_loggers
from nemo_sspo.megatron.nemo.lora import Adapters, merged_adapters
from nemo_sspo.megatron.nemo.model import SSPOModel
from nemo_sspo.megatron.nemo.model_config import training_config
from nemo_sspo.megatron.nemo.precision import token_multiple
from nemo_sspo.megatron.nemo.recipe import optimizer, trainer
from nemo_sspo.megatron.nemo.resume import HoldScratch, SaveState, VerifiedResume, finish_saving, notes_file
from nemo_sspo.megatron.nemo.step_log import StepLog, read_log
from nemo_sspo.megatron.optimizer.torch_adam import torch_adam_resumes


@dataclass(frozen=True)
class TrainingJob:
    """What a rank needs to train."""

    pairs: PairTable
    weights: Path
    """Checkpoint of the policy that training starts from."""
    hf_dir: Path
    """Its Hugging Face files, without weights."""
    output: Path
    """Where the new policy's checkpoint goes."""
    scratch: Path
    """State that a later attempt resumes from, and the step logs."""
    logs: Path
    """Where the loggers' files go."""
    run_name: str
    train: Train
    parallel: Parallel
    precision: Precision
    objective: PreferenceObjective
    repulsion_weight: Callable[[int, int], float]
    """lambda at (0-based step, total steps)."""
    seed: int
    progress: Progress
    candidates: int = 1
    """Checkpoints to keep, evenly spaced over the steps; the last one is `output`."""

    @property
    def batches(self) -> list[GlobalBatch]:
        """The pairs of every step: the same on every rank, in every layout and in every attempt."""
        train = self.train
        return shuffled(
            len(self.pairs), global_batch_size=train.global_batch_size, epochs=train.train_epochs, seed=self.seed
        )

    @property
    def earlier_candidates(self) -> dict[int, Path]:
        """Where the candidates but the last go, by the step after which they are kept. They outlive an attempt."""
        steps = candidate_steps(len(self.batches), self.candidates)[:-1]
        return {step: self.scratch / f"candidate_{step}" for step in steps}

    @property
    def attempt(self) -> str:
        """A name of this attempt alone, the same on every rank: an attempt's draft is its own."""
        return digest_of({"output": str(self.output)})[:16]

    @property
    def metrics_file(self) -> Path:
        """One line per step; equal runs have equal lines."""
        return self.scratch / "metrics.jsonl"

    @property
    def notes(self) -> list[str]:
        """Notes of the attempts, for example on damaged states."""
        file = notes_file(self.scratch)
        return file.read_text().splitlines() if file.exists() else []

    @property
    def timings_file(self) -> Path:
        """One line per step of seconds and rates."""
        return self.scratch / "steps.jsonl"


class _SaveWeights(pl.Callback):
    """Saves the policy after the steps that are asked for, and at the end of ``fit``, while its process groups still
    stand; adapters are merged. Training goes on as if nothing had been saved.

    It comes before `SaveState`: a run that resumes after a step finds what was saved in it.
    """

    def __init__(self, directory: Path, after_steps: Mapping[int, Path]) -> None:
        self._directory = directory
        self._after_steps = after_steps

    @override
    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        if (directory := self._after_steps.get(trainer.global_step)) is not None:
            if trainer.is_global_zero:
                shutil.rmtree(directory, ignore_errors=True)  # a killed attempt's, or that of steps taken again
            with hash_while_writing():
                self._save(trainer, directory)
            if trainer.is_global_zero:
                seal(directory)  # it lies in the scratch for the rest of the training

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._save(trainer, self._directory)

    def _save(self, trainer: pl.Trainer, directory: Path) -> None:
        # Drain the state's writes first: both saves share one queue, and the state's results would index the weights.
        finish_saving(trainer)
        strategy = cast(MegatronStrategy, trainer.strategy)
        chunks = strategy.megatron_parallel
        if strategy.ddp_config.overlap_param_gather:
            # Other data-parallel ranks' updates of the last step otherwise arrive only with the next forward pass.
            chunks.force_param_sync()
        modules = [unwrap(chunk) for chunk in chunks]
        with ExitStack() as stack:
            for module in modules:
                stack.enter_context(merged_adapters(module))
            save_weights(modules, directory)


def train_rank(job: TrainingJob) -> list[dict[str, Any]]:
    """Train on this rank; every rank of the layout calls it. Rank 0 writes the logs, all of them the checkpoint.

    Continues from the newest complete state in `job.scratch`, if there is one. Returns the metrics of every step.
    """
    train, batches = job.train, job.batches
    require_fit(job.pairs, job.hf_dir)
    with nemo_cpu_runtime(), torch_adam_resumes():
        config = training_config(job.hf_dir, job.parallel, job.precision, train)
        model = SSPOModel(
            config,
            job.weights,
            read_hf_config(job.hf_dir).require("vocab_size"),
            head_tile(train),
            choose_head(train, separable=job.objective.separable),
            job.objective,
            partial(_at_step, job.repulsion_weight, len(batches)),
            optimizer(train, job.precision, job.parallel, steps_per_epoch(len(job.pairs), train.global_batch_size)),
            None if train.peft is None else Adapters(train.lora_rank, train.lora_alpha, job.seed),
            StepNumbers(job.pairs.pair_ids),
        )
        fit = trainer(
            job.parallel,
            job.precision,
            max_steps=len(batches),
            callbacks=_callbacks(job, model, batches),
        )
        fit._checkpoint_connector = VerifiedResume(fit)
        plan = MicrobatchPlan(job.pairs, batches, train, job.parallel, token_multiple(job.precision))
        fit.fit(model, datamodule=PairDataModule(plan), ckpt_path=job.scratch)
        dist.barrier()
        return read_log(job.metrics_file)


def _callbacks(job: TrainingJob, model: SSPOModel, batches: list[GlobalBatch]) -> list[pl.Callback]:
    flops = ModelFlops.of(model.config, model.vocab_size, frozen=job.train.peft is not None)
    lengths = job.pairs.lengths()
    shares_prompts = job.train.share_prompt
    work = [flops.of_step((lengths[row] for row in batch.pairs), shares_prompts=shares_prompts) for batch in batches]
    loggers = build_loggers(job.train.loggers, job.logs, job.run_name)
    return [
        HoldScratch(job.scratch, job.attempt),
        StepLog(job.metrics_file, job.timings_file, work, peak_flops_here(), job.progress, loggers, model.numbers),
        _SaveWeights(job.output, job.earlier_candidates),
        SaveState(job.scratch, job.train.checkpoint_every_steps, job.train.keep_states, job.attempt),
    ]


def _at_step(weight: Callable[[int, int], float], total: int, step: int) -> float:
    return weight(step, total)
