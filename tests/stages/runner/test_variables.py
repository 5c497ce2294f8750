"""A launcher around a run leaks into none of its processes; every stage has the variables that its libraries want."""

import os
from pathlib import Path
from unittest.mock import Mock

import pytest

from nemo_sspo.artifacts.node_folder import node_folder
from nemo_sspo.stages.runner.variables import defaults, of_process, set_defaults

OUTER = {
    "slurm": "SLURM_JOB_ID SLURM_NTASKS SLURM_NPROCS SLURM_PROCID SLURM_LOCALID SLURM_NODEID SLURM_NTASKS_PER_NODE",
    "torchrun": "RANK LOCAL_RANK WORLD_SIZE LOCAL_WORLD_SIZE GROUP_RANK ROLE_RANK MASTER_ADDR MASTER_PORT "
    "TORCHELASTIC_RUN_ID TORCHELASTIC_USE_AGENT_STORE TORCHELASTIC_RESTART_COUNT",
    "kubeflow": "PET_NNODES PET_NPROC_PER_NODE PET_NODE_RANK PET_RDZV_ENDPOINT NODE_RANK",
    "mpi": "OMPI_COMM_WORLD_RANK OMPI_COMM_WORLD_SIZE PMI_RANK PMIX_RANK PMIX_NAMESPACE",
    "lsf": "LSB_JOBID LSB_DJOB_RANKFILE JSM_NAMESPACE_LOCAL_RANK JSM_NAMESPACE_SIZE",
    "our own job": "NEMO_SSPO_RANKS NEMO_SSPO_RENDEZVOUS NEMO_SSPO_VERDICT NODE_COUNT",
}


@pytest.mark.parametrize("launcher", OUTER)
def test_a_launcher_around_a_run_is_hidden_from_its_processes(monkeypatch, launcher):
    names = OUTER[launcher].split()
    for name in names:
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("NEMO_SSPO_TRAIN_PYTHON", "kept")
    seen = of_process({}, gpus=())
    assert not seen.keys() & set(names)
    assert seen["NEMO_SSPO_TRAIN_PYTHON"] == "kept"
    assert seen["PATH"] == os.environ["PATH"]


def test_the_environments_own_variables_win(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    seen = of_process({"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "0"}, gpus=("2", "3"))
    assert (seen["OMP_NUM_THREADS"], seen["PYTHONUNBUFFERED"]) == ("1", "0")
    assert seen["CUDA_VISIBLE_DEVICES"] == "2,3"
    assert seen["PYTHONNOUSERSITE"] == "1"
    assert of_process({}, gpus=())["CUDA_VISIBLE_DEVICES"] == ""
    assert of_process({}, gpus=None)["CUDA_VISIBLE_DEVICES"] == "0,1,2,3"


def test_a_stage_adds_what_is_unset_or_empty_and_keeps_the_rest():
    environment = {"TORCH_CUDA_ARCH_LIST": "", "TORCH_EXTENSIONS_DIR": "/opt/warm", "CUDA_DEVICE_MAX_CONNECTIONS": "8"}
    set_defaults("train", environment)
    assert environment == {**defaults("train"), "TORCH_EXTENSIONS_DIR": "/opt/warm", "CUDA_DEVICE_MAX_CONNECTIONS": "8"}
    assert "CUDA_DEVICE_MAX_CONNECTIONS" not in defaults("rollout")


def test_what_a_training_compiles_needs_no_user_name(monkeypatch):
    """A container may run as a user id that has none, after which torch 2.9 names its cache."""
    cache_dir_utils = pytest.importorskip("torch._inductor.runtime.cache_dir_utils")
    monkeypatch.setattr("getpass.getuser", Mock(side_effect=KeyError("uid not found")))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", defaults("train")["TORCHINDUCTOR_CACHE_DIR"])
    assert Path(cache_dir_utils.cache_dir()).is_relative_to(node_folder())


def test_a_user_without_a_name_has_a_home_and_a_name(monkeypatch):
    assert not {"HOME", "USER"} & defaults("train").keys()
    monkeypatch.setattr("pwd.getpwuid", Mock(side_effect=KeyError("uid not found")))
    environment = {"HOME": "/home/any"}
    set_defaults("rollout", environment)
    assert environment["HOME"] == "/home/any"
    assert environment["USER"] == str(os.getuid())
    assert Path(defaults("rollout")["HOME"]).is_relative_to(node_folder())
