"""NeMo's strategy, which loads the model's weights once all of this rank's chunks are built.

Not chunk by chunk as they are built: where stages share the embedding, building the last stage's last chunk waits for
the first stage's first one (they all-reduce the embedding), and loading waits for all ranks. With interleaved stages
these two wait for each other for ever.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, cast

import lightning.pytorch as pl
import torch
from nemo.lightning.pytorch.strategies import MegatronStrategy
from typing_extensions import override

from nemo_sspo.megatron.models.finite import naming_the_pairs
from nemo_sspo.megatron.nemo.model import SSPOModel, load_policy
from nemo_sspo.megatron.optimizer.torch_adam import allocate_adam_state
from nemo_sspo.megatron.runtime.groups import Groups


class PolicyStrategy(MegatronStrategy):
    """Loads and adapts the policy before its chunks are wrapped and an optimizer exists; resumes torch's Adam too."""

    @override
    def training_step(self, dataloader_iter: Any, *args: Any, **kwargs: Any) -> Any:
        """As NeMo's. Megatron finds NaN and Inf in gradients before it sums over ranks; the error here names pairs."""
        step_pairs = cast(SSPOModel, self.lightning_module).step_pairs
        with naming_the_pairs(self.trainer.global_step + 1, step_pairs):
            return super().training_step(dataloader_iter, *args, **kwargs)

    @cached_property
    def groups(self) -> Groups:
        """Once the ranks are connected."""
        return Groups.of_megatron()

    @override
    def init_model_parallel(self) -> None:
        chunks = [cast(SSPOModel, chunk) for chunk in self.megatron_parallel]
        for chunk in chunks:
            chunk.groups = self.groups
        load_policy(chunks)
        # NeMo wraps the chunks on a stream of its own, and no stream waits for the other: weights still on their way
        # would be copied into the buffers that training reads, and a step could read those before they are filled.
        torch.cuda.synchronize()
        super().init_model_parallel()
        torch.cuda.synchronize()

    @override
    def optimizer_sharded_state_dict(self, is_loading: bool = False, metadata: dict | None = None) -> dict[str, Any]:
        if is_loading:
            allocate_adam_state(optimizer.mcore_optimizer for optimizer in self.optimizers)
        return super().optimizer_sharded_state_dict(is_loading, metadata)


def groups_of(trainer: pl.Trainer) -> Groups:
    """The process groups of a trainer of `recipe.trainer` that runs."""
    return cast(PolicyStrategy, trainer.strategy).groups
