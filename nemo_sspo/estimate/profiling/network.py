"""Bytes/s that a GPU sends to others: `python -m nemo_sspo.estimate.profiling.network`; prints JSON.

    in_node         to the others of its node, while all of them send
    between_nodes   to the GPUs of its number in other nodes, likewise; torchrun starts the program on each node then

A weight is gathered and its gradient scattered, over NCCL; on a processor by two ranks, over gloo.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from nemo_sspo.estimate.profiling.clock import seconds
from nemo_sspo.visible_gpus import visible_gpus

_ON_PROCESSOR = 2
_NUMBERS = {"cuda": 2**27, "cpu": 2**20}
"""In bf16, which each rank has a share of."""


def main() -> None:
    """Print what there is to measure; rank 0 does."""
    if "RANK" in os.environ:
        found, rank = rates(), int(os.environ["RANK"])
    else:
        found, rank = _of_this_node(len(visible_gpus()) or _ON_PROCESSOR), 0
    if rank == 0:
        print(json.dumps(found))


def _of_this_node(ranks: int) -> dict[str, float]:
    if ranks == 1:
        return {}
    config = LaunchConfig(
        1, 1, ranks, run_id="profile", rdzv_backend="c10d", rdzv_endpoint="localhost:0", max_restarts=0
    )
    return elastic_launch(config, rates)()[0]


def rates() -> dict[str, float]:
    """Of the slowest rank. Collective: every rank of all nodes calls it."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    local, in_node = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    if device == "cuda":
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        world = dist.get_world_size()
        if world % in_node:
            raise RuntimeError(f"{world} ranks, {in_node} of them on this node: start equally many on each")
        nodes = [range(first, first + in_node) for first in range(0, world, in_node)]
        numbers = [range(first, world, in_node) for first in range(in_node)]
        found = {"in_node": _rate(nodes, device)} if in_node > 1 else {}
        return found | ({"between_nodes": _rate(numbers, device)} if world > in_node else {})
    finally:
        dist.destroy_process_group()


def _rate(groups: Iterable[range], device: str) -> float:
    """Of all groups at the same time, which are equally large."""
    group, _ = dist.new_subgroups_by_enumeration(list(map(list, groups)))
    ranks = dist.get_world_size(group)
    whole = torch.zeros(_NUMBERS[device] // ranks * ranks, dtype=torch.bfloat16, device=device)
    share = torch.zeros(whole.numel() // ranks, dtype=torch.bfloat16, device=device)

    def step() -> None:
        dist.all_gather_into_tensor(whole, share, group)
        dist.reduce_scatter_tensor(share, whole, group=group)

    slowest = torch.tensor(seconds(step, device), dtype=torch.float64, device=device)
    dist.all_reduce(slowest, op=dist.ReduceOp.MAX)
    return 2 * (ranks - 1) * share.nbytes / slowest.item()


if __name__ == "__main__":
    main()
