from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import torch.distributed as dist


@pytest.fixture
def one_gpu() -> Iterator[dist.ProcessGroup]:
    """Megatron's process groups over NCCL, of this process alone. Yields the tensor-parallel one."""
    import torch
    import torch.distributed as dist
    from megatron.core import parallel_state
    from megatron.core.tensor_parallel import model_parallel_cuda_manual_seed

    torch.cuda.set_device(0)
    # NGC's containers have fp32 products rounded to TF32, which fp32's bounds here do not allow for.
    torch.set_float32_matmul_precision("highest")
    dist.init_process_group("nccl", store=dist.HashStore(), rank=0, world_size=1)
    parallel_state.initialize_model_parallel()
    model_parallel_cuda_manual_seed(1)
    yield parallel_state.get_tensor_model_parallel_group()
    if find_spec("transformer_engine") is not None:
        from transformer_engine.pytorch.fp8 import FP8GlobalStateManager

        # It keeps the history of every FP8 layer there was, with its group, and would reduce it in the next test.
        FP8GlobalStateManager.reset()
    parallel_state.destroy_model_parallel()
    dist.destroy_process_group()
