"""Run NeMo's strategy over gloo on a machine that has no CUDA; nothing here happens where there is a GPU.

`cpu_runtime` serves megatron-core. NeMo takes a GPU for granted in two more places:

    nemo/lightning/io/pl.py          _fix_tensors_device asserts that CUDA is initialized -> tensors stay as they are
    nemo/lightning/pytorch/strategies/megatron_strategy.py
                                     load_optimizer_state_dict builds a "cuda" device mesh that it only uses with FSDP
                                     -> a "cpu" mesh

and where Transformer Engine's optimizer is not there, torch's Adam keeps its step count as a state of each parameter:

    megatron/core/optimizer/distrib_optimizer.py
                                     load_state_dict gives all parameters one tensor for it, which each of them then
                                     increments at every step; and _set_main_param_and_optimizer_states looks for it
                                     among tensors from which its caller left it out -> a tensor of each one's own

`CpuMegatronStrategy` does the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer
from megatron.core.tensor_parallel import model_parallel_cuda_manual_seed
from nemo.lightning.io import pl as nemo_checkpoint_io
from torch.distributed import DeviceMesh
from typing_extensions import override

from nemo_sspo.megatron.cpu_runtime import cpu_runtime
from nemo_sspo.megatron.strategy import PolicyStrategy

_mesh_from_group = DeviceMesh.from_group
_set_states = DistributedOptimizer._set_main_param_and_optimizer_states


def _cpu_mesh_from_group(group: Any, device_type: str, *args: Any, **kwargs: Any) -> DeviceMesh:
    return _mesh_from_group(group, "cpu" if device_type == "cuda" else device_type, *args, **kwargs)


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
def nemo_cpu_runtime() -> Iterator[None]:
    """Let NeMo and megatron-core run on the CPU inside the `with` block; a no-op where CUDA is available."""
    if torch.cuda.is_available():
        yield
        return
    replacements = [
        (nemo_checkpoint_io, "_fix_tensors_device", lambda checkpoint: checkpoint),
        (DeviceMesh, "from_group", staticmethod(_cpu_mesh_from_group)),
        (DistributedOptimizer, "_set_main_param_and_optimizer_states", _set_states_and_step),
    ]
    with ExitStack() as stack:
        stack.enter_context(cpu_runtime())
        for owner, name, replacement in replacements:
            stack.enter_context(mock.patch.object(owner, name, replacement))
        yield


class CpuMegatronStrategy(PolicyStrategy):
    """NeMo's strategy with what it takes from CUDA and from Transformer Engine's optimizer served on the CPU."""

    @override
    def setup_distributed(self) -> None:
        super().setup_distributed()
        # NeMo seeds the model-parallel random states only where CUDA is initialized.
        model_parallel_cuda_manual_seed(1234)

    @override
    def optimizer_sharded_state_dict(self, is_loading: bool = False, metadata: dict | None = None) -> dict[str, Any]:
        if is_loading:
            self._allocate_adam_state()
        return super().optimizer_sharded_state_dict(is_loading, metadata)

    def _allocate_adam_state(self) -> None:
        """Give torch's Adam, which allocates at its first step, the state that a checkpoint is loaded into.

        Megatron's distributed optimizer reads the step count from it even then (Transformer Engine's keeps it apart).
        """
        for optimizer in self.optimizers:
            for part in optimizer.mcore_optimizer.chained_optimizers:
                if not isinstance(part.optimizer, torch.optim.Adam):
                    continue
                for parameter in (p for group in part.optimizer.param_groups for p in group["params"]):
                    if not part.optimizer.state[parameter]:
                        part.optimizer.state[parameter] = {
                            "step": torch.tensor(0.0),
                            "exp_avg": torch.zeros_like(parameter),
                            "exp_avg_sq": torch.zeros_like(parameter),
                        }
