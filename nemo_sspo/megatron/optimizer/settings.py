"""Configuration -> Megatron's optimizer and data parallelism."""

from __future__ import annotations

from megatron.core.distributed import DistributedDataParallelConfig
from megatron.core.optimizer import OptimizerConfig

from nemo_sspo.config.precisions import Precision
from nemo_sspo.config.stages import Parallel, Train
from nemo_sspo.megatron.models.precision import params_dtype


def optimizer_config(train: Train, precision: Precision, parallel: Parallel) -> OptimizerConfig:
    """Megatron's optimizer; it clips gradients by their norm over all ranks."""
    return OptimizerConfig(
        # Megatron's "adam" decouples weight decay: it is AdamW.
        optimizer={"adamw": "adam", "sgd": "sgd"}[train.optimizer],
        lr=train.learning_rate,
        min_lr=train.min_learning_rate,
        weight_decay=train.weight_decay,
        adam_beta1=train.adam_beta1,
        adam_beta2=train.adam_beta2,
        adam_eps=train.adam_epsilon,
        sgd_momentum=train.sgd_momentum,
        clip_grad=train.clip_grad,
        bf16=precision.kind != "fp32",
        params_dtype=params_dtype(precision),
        use_distributed_optimizer=parallel.distributed_optimizer,
        overlap_param_gather=_overlaps_gather(parallel),
    )


def data_parallel_config(parallel: Parallel) -> DistributedDataParallelConfig:
    """How replicas reduce gradients, always in fp32, and gather parameters."""
    return DistributedDataParallelConfig(
        grad_reduce_in_fp32=True,
        use_distributed_optimizer=parallel.distributed_optimizer,
        overlap_grad_reduce=parallel.overlap_communication,
        overlap_param_gather=_overlaps_gather(parallel),
        check_for_nan_in_grad=True,
    )


def _overlaps_gather(parallel: Parallel) -> bool:
    return parallel.overlap_communication and parallel.distributed_optimizer
