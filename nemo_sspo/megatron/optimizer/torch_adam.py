"""Resume torch's Adam under Megatron's distributed optimizer, where Transformer Engine's is not there.

megatron-core takes it on a CPU, and on a GPU without Transformer Engine (`train.layers=local`). It keeps its step count
as a state of each parameter, which megatron-core does not expect (paths inside megatron/core/optimizer):

    distrib_optimizer.py  load_state_dict gives all parameters one tensor for it, which each of them then increments at
                          every step; and _set_main_param_and_optimizer_states looks for it among tensors from which its
                          caller left it out -> a tensor of each one's own
    distrib_optimizer.py  reads the step count before the first step, where torch's has no state yet -> allocated

With Transformer Engine's Adam nothing here has an effect.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer

_set_states = DistributedOptimizer._set_main_param_and_optimizer_states


def _set_states_and_step(
    self: DistributedOptimizer, model_param: torch.nn.Parameter, tensors: dict[str, torch.Tensor]
) -> None:
    group, order = self.model_param_group_index_map[model_param]
    state = self.optimizer.state[self.optimizer.param_groups[group]["params"][order]]
    if "step" in state:
        state["step"] = state["step"].clone()
        tensors = {"step": state["step"], **tensors}
    _set_states(self, model_param, tensors)


@contextmanager
def torch_adam_resumes() -> Iterator[None]:
    """Let a state with torch's Adam be loaded inside the `with` block, with a GPU or without."""
    with mock.patch.object(DistributedOptimizer, "_set_main_param_and_optimizer_states", _set_states_and_step):
        yield


def allocate_adam_state(optimizers: Iterable[Any]) -> None:
    """Give torch's Adam, which allocates at its first step, the state that a checkpoint is loaded into.

    `optimizers`: Megatron's, chained ones included.
    """
    for optimizer in optimizers:
        for part in getattr(optimizer, "chained_optimizers", [optimizer]):
            if not isinstance(part.optimizer, torch.optim.Adam):
                continue
            for parameter in (p for group in part.optimizer.param_groups for p in group["params"]):
                if not part.optimizer.state[parameter]:
                    part.optimizer.state[parameter] = {
                        "step": torch.tensor(0.0),
                        "exp_avg": torch.zeros_like(parameter),
                        "exp_avg_sq": torch.zeros_like(parameter),
                    }
