"""The state of a training as a ``torch_dist`` checkpoint: weights, optimizer and number of steps."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch.distributed as dist
from megatron.core import dist_checkpointing
from megatron.core.dist_checkpointing.strategies.async_utils import AsyncCallsQueue
from megatron.core.models.gpt import GPTModel
from megatron.core.optimizer import MegatronOptimizer

from nemo_sspo.megatron.checkpoints import states
from nemo_sspo.megatron.checkpoints.weights import KEY_PREFIX, LAYOUT_METADATA
from nemo_sspo.megatron.optimizer.torch_adam import allocate_adam_state

# From 0.17 on another package's writers are the default, which are not Megatron's own of these files.
_OWN_WRITERS = (
    {"async_strategy": "mcore"} if "async_strategy" in inspect.signature(dist_checkpointing.save).parameters else {}
)


class StateFiles:
    """Writes and reads the states of one training. All of it is collective."""

    def __init__(self, chunks: Sequence[GPTModel], optimizer: MegatronOptimizer, *, reshardable: bool) -> None:
        """`reshardable`: the optimizer is distributed, and its state is kept by parameter, in any layout's parts."""
        self._chunks = chunks
        self._optimizer = optimizer
        self._metadata: dict[str, Any] = dict(LAYOUT_METADATA)
        if reshardable:
            # The first replica gathers the state over gloo, bucket by bucket; over NCCL every replica would gather the
            # whole into its host's memory.
            self._metadata |= {
                "distrib_optim_sharding_type": "fully_reshardable",
                "distrib_optim_fully_reshardable_mem_efficient": True,
            }
        self._writers = AsyncCallsQueue()

    def save(self, directory: Path, step: int, written: Callable[[], None]) -> None:
        """Save the state after `step`, in the background where there are GPUs; then `written` is called."""
        request = dist_checkpointing.save(
            self._parts(is_loading=False) | {"step": step},
            str(directory),
            async_sharded_save=states.saves_in_background(),
            content_metadata=self._metadata,
            **_OWN_WRITERS,
        )
        if request is not None:
            request.add_finalize_fn(written)
            self._writers.schedule_async_request(request)
            return
        dist.barrier()
        written()

    def finish(self, *, wait: bool) -> None:
        """Call `written` of the states that all ranks have written, or `wait` for the others too.

        Raises CheckpointException when a rank's writer has failed.
        """
        self._writers.maybe_finalize_async_calls(blocking=wait)

    def load(self, directory: Path) -> int:
        """Take the weights and the optimizer's state; returns the number of steps taken."""
        allocate_adam_state([self._optimizer])
        state = dist_checkpointing.load(self._parts(is_loading=True), str(directory))
        for number, chunk in enumerate(self._chunks):
            weights = state["model"][f"chunk_{number}"]
            chunk.load_state_dict({name.removeprefix(KEY_PREFIX): value for name, value in weights.items()})
        self._optimizer.load_state_dict(state["optimizer"])
        return state["step"]

    def _parts(self, *, is_loading: bool) -> dict[str, Any]:
        metadata = dict(self._metadata)  # a copy, as in `sharded_weights`
        model = {
            f"chunk_{number}": chunk.sharded_state_dict(prefix=KEY_PREFIX, metadata=metadata)
            for number, chunk in enumerate(self._chunks)
        }
        optimizer = self._optimizer.sharded_state_dict(model, is_loading=is_loading, metadata=metadata)
        return {"model": model, "optimizer": optimizer}
