"""Megatron's optimizer over a rank's chunks, under the learning rate of each step."""

from __future__ import annotations

from collections.abc import Sequence

from megatron.core import optimizer as megatron_optimizer
from megatron.core.distributed import DistributedDataParallel
from megatron.core.optimizer import MegatronOptimizer, OptimizerConfig


def make_optimizer(config: OptimizerConfig, chunks: Sequence[DistributedDataParallel]) -> MegatronOptimizer:
    """As Megatron makes it, with weight decay on matrices alone. Collective."""
    # From megatron-core 0.16 to 0.18 norms and biases decay too, unless this is asked for; 0.15 cannot be asked.
    standard = getattr(megatron_optimizer, "get_standard_config_overrides", None)
    settings = {} if standard is None else {"config_overrides": standard(config)}
    made = megatron_optimizer.get_megatron_optimizer(config, list(chunks), **settings)
    for group in made.param_groups:  # applied by Megatron's own scheduler only
        group["weight_decay"] *= group["wd_mult"]
    return made


def set_learning_rate(optimizer: MegatronOptimizer, rate: float) -> None:
    """Of the next step."""
    for group in optimizer.param_groups:
        group["lr"] = rate
