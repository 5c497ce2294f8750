"""Independent tasks on the host, shared out among processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from nemo_sspo.megatron.models.host_memory import MOST_PROCESSES
from nemo_sspo.megatron.runtime.forked_ranks import run_forked

T = TypeVar("T")
R = TypeVar("R")


def in_processes(fn: Callable[[T], R], tasks: Sequence[T]) -> list[R]:
    """Call `fn` with every task and return the results in the tasks' order; nothing may depend on who did what.

    A process for each core that this one may use, at most `MOST_PROCESSES` and one a task. Where one is enough, or CUDA
    has begun in this process, it is this process. Raises what `run_forked` does.
    """
    count = min(len(tasks), len(os.sched_getaffinity(0)), MOST_PROCESSES)
    if count <= 1 or torch.cuda.is_initialized():
        return [fn(task) for task in tasks]
    shares = run_forked(lambda: [fn(task) for task in tasks[int(os.environ["RANK"]) :: count]], count, timeout=None)
    return [shares[number % count][number // count] for number in range(len(tasks))]
