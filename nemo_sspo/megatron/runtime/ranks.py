"""Run a function on every rank of a training layout, whatever starts the ranks."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from torch.distributed import TCPStore

from nemo_sspo.errors import UserError
from nemo_sspo.megatron.runtime.forked_ranks import run_forked
from nemo_sspo.megatron.runtime.rendezvous import THIS_MACHINE, Node, meet

T = TypeVar("T")


def on_every_rank(fn: Callable[[], T], world_size: int) -> T | None:
    """Call `fn` on `world_size` ranks and return rank 0's result; None on the other ranks.

    Under torchrun or srun (RANK is set) this process is one of the ranks; where one GPU is all that is asked for, it is
    the only one. On machines without a GPU the ranks are forked from this process, which has imported everything
    already; where stages/runner/slurm_task.py found several nodes, each forks its share. Raises UserError when the
    number of ranks that were started is not `world_size`.
    """
    if "RANK" not in os.environ:
        return _alone(fn) if world_size == 1 and torch.cuda.is_available() else _fork(fn, world_size)
    started = int(os.environ["WORLD_SIZE"])
    if started != world_size:
        raise UserError(
            f"{started} ranks were started, but tensor x pipeline x context x data = {world_size}; "
            "change parallel.* or start that many"
        )
    rank = int(os.environ["RANK"])
    store = None
    if rendezvous := os.environ.get("NEMO_SSPO_RENDEZVOUS"):  # torchrun has a store of its own
        store = _meet_at(Node(rank, world_size, Path(rendezvous)))
    try:
        result = fn()
    finally:
        del store  # served until here
    return result if rank == 0 else None


def _meet_at(node: Node) -> TCPStore | None:
    """Set the rendezvous address for torch. The first node serves the store until it leaves."""
    store, host, port = meet(node)
    # The last name is torch's for "the store is already served": rank 0 must not try to listen there.
    os.environ |= {"MASTER_ADDR": host, "MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    return store


def _alone(fn: Callable[[], T]) -> T:
    store = _meet_at(THIS_MACHINE)
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "GROUP_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
    try:
        return fn()
    finally:
        del store  # served until here


def _fork(fn: Callable[[], T], world_size: int) -> T | None:
    if torch.cuda.is_available():
        raise UserError("start the ranks of a GPU training stage with torchrun or srun (cluster.launcher)")
    node = THIS_MACHINE
    if rendezvous := os.environ.get("NEMO_SSPO_RENDEZVOUS"):
        node = Node(int(os.environ["NODE_RANK"]), int(os.environ["NODE_COUNT"]), Path(rendezvous))
    if world_size % node.count:
        raise UserError(f"{world_size} ranks cannot be shared by {node.count} nodes; change cluster.ranks_per_node")
    results = run_forked(fn, world_size, timeout=None, node=node)
    return results[0] if node.rank == 0 else None
