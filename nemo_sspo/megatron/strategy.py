"""NeMo's strategy, giving the model its weights once all of this rank's chunks stand.

Not chunk by chunk as they are built: where stages share the embedding, building the last stage's last chunk waits for
the first stage's first one (they all-reduce the embedding), and loading waits for all ranks. With interleaved stages
these two wait for each other for ever.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from nemo.lightning.pytorch.strategies import MegatronStrategy
from typing_extensions import override

from nemo_sspo.megatron.model import SSPOModel, load_policy
from nemo_sspo.megatron.torch_adam import allocate_adam_state


class PolicyStrategy(MegatronStrategy):
    """Loads and adapts the policy before its chunks are wrapped and an optimizer exists; resumes torch's Adam too."""

    @override
    def init_model_parallel(self) -> None:
        load_policy([cast(SSPOModel, chunk) for chunk in self.megatron_parallel])
        # NeMo wraps the chunks on a stream of its own, and no stream waits for the other: weights still on their way
        # would be copied into the buffers that training reads, and a step could read those before they are filled.
        torch.cuda.synchronize()
        super().init_model_parallel()
        torch.cuda.synchronize()

    @override
    def optimizer_sharded_state_dict(self, is_loading: bool = False, metadata: dict | None = None) -> dict[str, Any]:
        if is_loading:
            allocate_adam_state(self.optimizers)
        return super().optimizer_sharded_state_dict(is_loading, metadata)
