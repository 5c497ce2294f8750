"""A task of srun as torch and Lightning know ranks. The one place that reads SLURM_* inside of a stage."""

import os
from collections.abc import MutableMapping

# Lightning takes a process that has these for one of its own Slurm tasks, and counts ranks by them.
_COUNTED_BY_LIGHTNING = ("SLURM_NTASKS", "SLURM_NPROCS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID")


def set_rank_env(environment: MutableMapping[str, str] = os.environ) -> None:
    """Name this task's place in the training layout as the job's script asks for (NEMO_SSPO_RANKS).

    ``srun``: every task is a rank. ``fork``: every task is a node, whose ranks are forked. Without it, nothing.
    """
    how = environment.get("NEMO_SSPO_RANKS")
    if how is None:
        return
    tasks, nodes = int(environment["SLURM_NTASKS"]), int(environment["SLURM_NNODES"])
    environment.update(NODE_RANK=environment["SLURM_NODEID"], NODE_COUNT=str(nodes))
    if how == "srun":
        environment.update(
            RANK=environment["SLURM_PROCID"],
            LOCAL_RANK=environment["SLURM_LOCALID"],
            GROUP_RANK=environment["SLURM_NODEID"],
            WORLD_SIZE=str(tasks),
            LOCAL_WORLD_SIZE=str(tasks // nodes),
        )
    for name in _COUNTED_BY_LIGHTNING:
        environment.pop(name, None)


def is_leader(environment: MutableMapping[str, str] = os.environ) -> bool:
    """Whether this process publishes what its step makes: rank 0, or the first node's process before its ranks are."""
    return int(environment.get("RANK", environment.get("NODE_RANK", "0"))) == 0
