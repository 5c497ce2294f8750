"""Run NeMo's strategy over gloo on a machine that has no CUDA; nothing here happens where there is a GPU.

`cpu_runtime` serves megatron-core. NeMo takes a GPU for granted in two more places:

    nemo/lightning/io/pl.py          _fix_tensors_device asserts that CUDA is initialized -> tensors stay as they are
    nemo/lightning/pytorch/strategies/megatron_strategy.py
                                     load_optimizer_state_dict builds a "cuda" device mesh that it only uses with FSDP
                                     -> a "cpu" mesh

`CpuMegatronStrategy` does the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from megatron.core.tensor_parallel import model_parallel_cuda_manual_seed
from nemo.lightning.io import pl as nemo_checkpoint_io
from torch.distributed import DeviceMesh
from typing_extensions import override

from nemo_sspo.megatron.nemo.strategy import PolicyStrategy
from nemo_sspo.megatron.runtime.cpu_runtime import cpu_runtime

_mesh_from_group = DeviceMesh.from_group


def _cpu_mesh_from_group(group: Any, device_type: str, *args: Any, **kwargs: Any) -> DeviceMesh:
    return _mesh_from_group(group, "cpu" if device_type == "cuda" else device_type, *args, **kwargs)


@contextmanager
def nemo_cpu_runtime() -> Iterator[None]:
    """Let NeMo and megatron-core run on the CPU inside the `with` block; a no-op where CUDA is available."""
    if torch.cuda.is_available():
        yield
        return
    replacements = [
        (nemo_checkpoint_io, "_fix_tensors_device", lambda checkpoint: checkpoint),
        (DeviceMesh, "from_group", staticmethod(_cpu_mesh_from_group)),
    ]
    with ExitStack() as stack:
        stack.enter_context(cpu_runtime())
        for owner, name, replacement in replacements:
            stack.enter_context(mock.patch.object(owner, name, replacement))
        yield


class CpuMegatronStrategy(PolicyStrategy):
    """NeMo's strategy with what it takes from CUDA served on the CPU."""

    @override
    def setup_distributed(self) -> None:
        super().setup_distributed()
        # NeMo seeds the model-parallel random states only where CUDA is initialized.
        model_parallel_cuda_manual_seed(1234)
