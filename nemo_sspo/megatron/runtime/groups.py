"""This rank's process groups. Nothing else in this package reads megatron-core's global ones."""

from __future__ import annotations

import atexit
import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.models.common.embeddings.rotary_pos_embedding import RotaryEmbedding
from megatron.core.tensor_parallel import model_parallel_cuda_manual_seed
from torch.distributed import ProcessGroup

from nemo_sspo.config.stages import Parallel

_SEED = 1234
"""Of what Megatron draws: weights that are overwritten, and dropout, which no policy has."""


@dataclass(frozen=True)
class Groups:
    """The groups of a layout that this rank belongs to. A trainer binding makes them once its ranks are connected."""

    tp: ProcessGroup
    """Ranks that hold different parts of the same matrices."""
    pp: ProcessGroup
    """The stages of one pipeline, in their order."""
    cp: ProcessGroup
    """Ranks that hold different tokens of the same sequences."""
    dp: ProcessGroup
    """Replicas, which hold different pairs. Context parallelism is not counted in."""

    @classmethod
    def of_megatron(cls) -> Groups:
        """Those of megatron-core's `parallel_state`, which is initialized."""
        return cls(
            tp=parallel_state.get_tensor_model_parallel_group(),
            pp=parallel_state.get_pipeline_model_parallel_group(),
            cp=parallel_state.get_context_parallel_group(),
            dp=parallel_state.get_data_parallel_group(),
        )


def connect(parallel: Parallel) -> Groups:
    """Meet the other ranks of a layout, over NCCL on GPUs and over gloo without. Collective.

    They stay connected until the process ends: what it runs next, a training after a look at its reference, has the
    same layout.
    """
    if not dist.is_initialized():
        _meet()
        parallel_state.initialize_model_parallel(
            parallel.tensor,
            parallel.pipeline,
            virtual_pipeline_model_parallel_size=parallel.virtual_pipeline,
            context_parallel_size=parallel.context,
            expert_model_parallel_size=parallel.expert,
            expert_tensor_parallel_size=parallel.expert_tensor,
        )
    model_parallel_cuda_manual_seed(_SEED)
    return Groups.of_megatron()


def _meet() -> None:
    if not torch.cuda.is_available():
        dist.init_process_group("gloo")
        return
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl")
    atexit.register(dist.destroy_process_group)


@contextmanager
def groups_of_one_rank() -> Iterator[Groups]:
    """Megatron's groups of a world of one rank, whose default group exists. Gone after the block."""
    try:
        parallel_state.initialize_model_parallel()
        model_parallel_cuda_manual_seed(0)
        yield Groups.of_megatron()
    finally:
        parallel_state.destroy_model_parallel()
        _forget_groups()


def _forget_groups() -> None:
    """Drop the groups that `destroy_model_parallel` leaves in globals of the module, and those that dead models hold.

    A rank forked from this process later would destroy them, and there gloo waits for threads that no fork copies.
    """
    RotaryEmbedding.forward.cache_clear()  # keeps the embeddings of the last models that ran, and their groups
    gc.collect()
    for name, value in vars(parallel_state).items():
        if isinstance(value, ProcessGroup):
            setattr(parallel_state, name, None)
    parallel_state._global_process_group_list = None
