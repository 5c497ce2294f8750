"""Run a function on every rank of a training layout, however the ranks come to be."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

import torch

from nemo_sspo.errors import UserError
from nemo_sspo.megatron.forked_ranks import run_forked

T = TypeVar("T")


def on_every_rank(fn: Callable[[], T], world_size: int) -> T | None:
    """Call `fn` on `world_size` ranks and return rank 0's result; None on the other ranks.

    Under torchrun or srun (RANK is set) this process is one of the ranks. Otherwise, on a machine without a GPU, the
    ranks are forked from this process, which has imported everything already. Raises UserError when the number of
    ranks that were started is not `world_size`.
    """
    if "RANK" not in os.environ:
        if torch.cuda.is_available():
            raise UserError("start the ranks of a GPU training stage with torchrun or srun (cluster.launcher=torchrun)")
        return run_forked(fn, world_size, timeout=None)[0]
    started = int(os.environ["WORLD_SIZE"])
    if started != world_size:
        raise UserError(
            f"{started} ranks were started, but tensor x pipeline x context x data = {world_size}; "
            "change parallel.* or start that many"
        )
    result = fn()
    return result if os.environ["RANK"] == "0" else None
