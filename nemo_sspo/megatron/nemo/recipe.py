"""Configuration -> NeMo's trainer, strategy and optimizer. Every choice that NeMo or Megatron offers is made here."""

from __future__ import annotations

import os

import lightning.pytorch as pl
import torch
from lightning.pytorch.plugins.environments import TorchElasticEnvironment
from nemo import lightning as nl
from nemo.lightning.pytorch.optim import MegatronOptimizerModule
from nemo.utils import logging as nemo_logging

from nemo_sspo.config.precisions import Precision
from nemo_sspo.config.stages import Parallel, Train
from nemo_sspo.megatron.checkpoints import states
from nemo_sspo.megatron.models.precision import params_dtype
from nemo_sspo.megatron.nemo.cpu import CpuMegatronStrategy
from nemo_sspo.megatron.nemo.lr_schedule import PolicyLRSchedule
from nemo_sspo.megatron.nemo.precision import precision_plugin
from nemo_sspo.megatron.nemo.strategy import PolicyStrategy
from nemo_sspo.megatron.optimizer.settings import data_parallel_config, optimizer_config


def optimizer(train: Train, precision: Precision, parallel: Parallel, steps_per_epoch: int) -> MegatronOptimizerModule:
    """Megatron's optimizer with the learning-rate schedule."""
    return MegatronOptimizerModule(
        config=optimizer_config(train, precision, parallel), lr_scheduler=PolicyLRSchedule(train, steps_per_epoch)
    )


def strategy(parallel: Parallel, precision: Precision, *, trains: bool) -> nl.MegatronStrategy:
    """NeMo's strategy for this layout: NCCL on GPUs, gloo without. No optimizer is made unless it `trains`."""
    has_gpu = torch.cuda.is_available()
    build = PolicyStrategy if has_gpu else CpuMegatronStrategy
    return build(
        tensor_model_parallel_size=parallel.tensor,
        pipeline_model_parallel_size=parallel.pipeline,
        virtual_pipeline_model_parallel_size=parallel.virtual_pipeline,
        context_parallel_size=parallel.context,
        sequence_parallel=parallel.sequence,
        pipeline_dtype=params_dtype(precision),
        ddp=data_parallel_config(parallel),
        process_group_backend="nccl" if has_gpu else "gloo",
        setup_optimizers=trains,
        save_ckpt_format="torch_dist",
        ckpt_async_save=states.saves_in_background(),
        # Optimizer state by parameter, which torch's Adam can load too. The first replica gathers it over gloo, bucket
        # by bucket; over NCCL every replica would gather the whole state into its host's memory.
        ckpt_optim_fully_reshardable=parallel.distributed_optimizer,
        distrib_optim_fully_reshardable_mem_efficient=parallel.distributed_optimizer,
        replace_progress_bar=False,
    )


def trainer(
    parallel: Parallel,
    precision: Precision,
    *,
    max_steps: int | None,
    callbacks: list[pl.Callback],
) -> nl.Trainer:
    """NeMo's trainer over the ranks that torchrun, Slurm or `run_forked` started; `max_steps` None only evaluates."""
    local = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ.get("WORLD_SIZE", "1")))
    # NeMo logs every process group of every rank.
    nemo_logging.set_verbosity(nemo_logging.WARNING)
    built = nl.Trainer(
        accelerator="gpu" if torch.cuda.is_available() else "cpu",
        devices=local,
        num_nodes=parallel.world_size // local,
        max_steps=-1 if max_steps is None else max_steps,
        strategy=strategy(parallel, precision, trains=max_steps is not None),
        # A rank's place by the names that torchrun gives it, or by `runtime/ranks.py` otherwise. Lightning would
        # read Slurm's or MPI's variables wherever it finds any of them.
        plugins=[precision_plugin(precision), TorchElasticEnvironment()],
        limit_val_batches=0,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        logger=False,
    )
    # No constructor argument: nl.Trainer deep-copies those, and these hold files and the stage's progress.
    built.callbacks.extend(callbacks)
    return built
