"""One iteration's training on this rank, by NeMo's trainer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch.distributed as dist
from lightning.pytorch.trainer.connectors.checkpoint_connector import _CheckpointConnector
from typing_extensions import override

from nemo_sspo.megatron.batches.batch_plan import steps_per_epoch
from nemo_sspo.megatron.batches.fit import require_fit
from nemo_sspo.megatron.batches.microbatch_plan import MicrobatchPlan
from nemo_sspo.megatron.batches.row_shape import token_multiple
from nemo_sspo.megatron.binding import Observer
from nemo_sspo.megatron.checkpoints.states import newest_whole_state
from nemo_sspo.megatron.head.choice import choose_head, head_tile
from nemo_sspo.megatron.jobs import TrainingJob
from nemo_sspo.megatron.layers.adapter import Adapters
from nemo_sspo.megatron.models.families import read_hf_config
from nemo_sspo.megatron.models.finite import StepPairs
from nemo_sspo.megatron.nemo.cpu import nemo_cpu_runtime
from nemo_sspo.megatron.nemo.data import PairDataModule
from nemo_sspo.megatron.nemo.live import CallObservers, NemoTraining
from nemo_sspo.megatron.nemo.model import SSPOModel
from nemo_sspo.megatron.nemo.model_config import training_config
from nemo_sspo.megatron.nemo.recipe import optimizer, trainer
from nemo_sspo.megatron.optimizer.torch_adam import torch_adam_resumes


class _VerifiedResume(_CheckpointConnector):
    """Lightning's checkpoint restore, given the scratch directory instead: takes the newest complete state.

    Lightning calls it once the ranks are connected and the model is built.
    """

    @override
    def resume_start(self, checkpoint_path: Any = None) -> None:
        super().resume_start(
            None if checkpoint_path is None else newest_whole_state(Path(checkpoint_path), NemoTraining.trainer)
        )


def train_rank(job: TrainingJob, observers: Sequence[Observer]) -> None:
    """Train on this rank; every rank of the layout calls it, and leaves it when all are done.

    Continues from the newest complete state in `job.scratch`, if there is one.
    """
    train, batches = job.train, job.batches
    require_fit(job.pairs, job.hf_dir)
    with nemo_cpu_runtime(), torch_adam_resumes():
        config = training_config(job.hf_dir, job.parallel, job.precision, train)
        step_pairs = StepPairs(job.pairs.pair_ids)
        model = SSPOModel(
            config,
            job.weights,
            read_hf_config(job.hf_dir).require("vocab_size"),
            head_tile(train),
            choose_head(train, separable=job.objective.separable),
            job.objective,
            job.weight_at,
            optimizer(train, job.precision, job.parallel, steps_per_epoch(len(job.pairs), train.global_batch_size)),
            None if train.peft is None else Adapters(train.lora_rank, train.lora_alpha, job.seed),
            step_pairs,
        )
        fit = trainer(
            job.parallel, job.precision, max_steps=len(batches), callbacks=[CallObservers(observers, step_pairs)]
        )
        fit._checkpoint_connector = _VerifiedResume(fit)
        plan = MicrobatchPlan(job.pairs, batches, train, job.parallel, token_multiple(job.precision))
        fit.fit(model, datamodule=PairDataModule(plan), ckpt_path=job.scratch)
        dist.barrier()
