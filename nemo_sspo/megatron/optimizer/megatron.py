"""Megatron's optimizer over a rank's chunks, under the learning rate of each step."""

from __future__ import annotations

from collections.abc import Sequence

from megatron.core.distributed import DistributedDataParallel
from megatron.core.optimizer import MegatronOptimizer, OptimizerConfig, get_megatron_optimizer


def make_optimizer(config: OptimizerConfig, chunks: Sequence[DistributedDataParallel]) -> MegatronOptimizer:
    """As Megatron makes it, with weight decay on matrices alone. Collective."""
    made = get_megatron_optimizer(config, list(chunks))
    for group in made.param_groups:  # Megatron leaves it to its own scheduler, which is not used
        group["weight_decay"] *= group["wd_mult"]
    return made


def set_learning_rate(optimizer: MegatronOptimizer, rate: float) -> None:
    """Of the next step."""
    for group in optimizer.param_groups:
        group["lr"] = rate
