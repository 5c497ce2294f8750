"""This rank's process groups. Nothing else in this package reads megatron-core's global ones."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from megatron.core import parallel_state
from megatron.core.models.common.embeddings.rotary_pos_embedding import RotaryEmbedding
from megatron.core.tensor_parallel import model_parallel_cuda_manual_seed
from torch.distributed import ProcessGroup


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
