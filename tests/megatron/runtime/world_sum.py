"""What every rank of a world answers: that it met all others, and the variables it was given."""

from __future__ import annotations

import os

import torch
import torch.distributed as dist


def my_rank() -> int:
    return int(os.environ["RANK"])


def sum_over_all_ranks() -> tuple[str, ...]:
    dist.init_process_group("gloo")
    value = torch.tensor(float(10 ** my_rank()))
    dist.all_reduce(value)
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK")
    return (str(int(value)), *(os.environ[name] for name in names))


def answer_in(printed: str) -> str:
    """The last line: above it, gloo of torch 2.9 says who is connected to whom."""
    return printed.rstrip().rpartition("\n")[2]
