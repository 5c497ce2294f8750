"""A task of srun becomes a rank, or a node whose ranks are forked; no trace is left that Lightning would count by."""

import pytest

from nemo_sspo.stages.runner.slurm_task import is_leader, set_rank_env

# Task 9 of 16 on two nodes of 8, as srun names it.
TASK = {
    "SLURM_NTASKS": "16",
    "SLURM_NPROCS": "16",
    "SLURM_NNODES": "2",
    "SLURM_PROCID": "9",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_JOB_ID": "77",
}
COUNTED = {"SLURM_NTASKS", "SLURM_NPROCS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID"}


def test_a_task_is_a_rank():
    environment = {**TASK, "NEMO_SSPO_RANKS": "srun"}
    set_rank_env(environment)
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "NODE_RANK", "NODE_COUNT")
    assert [environment[name] for name in names] == ["9", "1", "16", "8", "1", "2"]
    assert not COUNTED & set(environment)
    assert environment["SLURM_JOB_ID"] == "77"
    assert not is_leader(environment)


@pytest.mark.parametrize(("node", "leads"), [("0", True), ("1", False)])
def test_a_task_is_a_node(node, leads):
    environment = {**TASK, "SLURM_NTASKS": "2", "SLURM_NODEID": node, "NEMO_SSPO_RANKS": "fork"}
    set_rank_env(environment)
    assert "RANK" not in environment
    assert (environment["NODE_RANK"], environment["NODE_COUNT"]) == (node, "2")
    assert is_leader(environment) is leads


def test_other_stages_and_other_launchers_are_left_alone():
    for environment in ({**TASK}, {"RANK": "3", "WORLD_SIZE": "4"}, {}):
        before = dict(environment)
        set_rank_env(environment)
        assert environment == before
    assert is_leader({})
    assert not is_leader({"RANK": "3"})
