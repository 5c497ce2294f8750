"""Environment variables of a stage's process: one table for every way of starting it.

What starts a process (the local runner, the script of a job, a benchmark) sets `ALWAYS`, then the environment's own
variables, and hides the variables of a launcher around it. The stage adds `defaults` to what is unset or empty by then,
so that the values of an image, a shell or a cluster's YAML stand.
"""

import os
import pwd
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Literal

from nemo_sspo.artifacts.node_folder import node_folder
from nemo_sspo.config.environments import RANK_VARIABLES
from nemo_sspo.stages.runner.torch_extensions import node_local_folder

ALWAYS: Mapping[str, str] = {
    "PYTHONUNBUFFERED": "1",
    # The home directory's site-packages would come before an image's own.
    "PYTHONNOUSERSITE": "1",
}

_OUTER_PREFIXES = ("SLURM_", "PMI_", "PMIX_", "OMPI_COMM_WORLD_", "MPI_LOCAL", "LSB_", "JSM_", "PET_", "TORCHELASTIC_")
"""Of a launcher around a run, beside `RANK_VARIABLES`: Slurm, MPI, LSF. torchrun takes its arguments from PET_*."""
WITHOUT_GPUS = "NEMO_SSPO_WITHOUT_GPUS"
_OUTER_JOB = ("NEMO_SSPO_RANKS", "NEMO_SSPO_RENDEZVOUS", "NEMO_SSPO_VERDICT", WITHOUT_GPUS)
"""Of a job's script of this package."""


def of_process(variables: Mapping[str, str], gpus: Sequence[str] | None) -> dict[str, str]:
    """All variables of a process that this one starts on its machine.

    Args:
        variables: of its environment (``cluster.train.variables``); they win.
        gpus: names of the GPUs it may use, none for a process on the host. None: those that this process sees.
    """
    inherited = {name: value for name, value in os.environ.items() if not _is_outer(name)}
    visible = {} if gpus is None else {"CUDA_VISIBLE_DEVICES": ",".join(gpus)}
    return {**inherited, **ALWAYS, **visible, **variables}


def _is_outer(name: str) -> bool:
    return name in RANK_VARIABLES or name in _OUTER_JOB or name.startswith(_OUTER_PREFIXES)


def defaults(kind: Literal["train", "rollout"]) -> dict[str, str]:
    """Variables of a stage where they are unset or empty."""
    common = {
        # Importing megatron-core compiles an extension where nvcc is on the PATH. Without a GPU in sight torch does not
        # know for what: A100, H100 and, as PTX, whatever comes later.
        "TORCH_CUDA_ARCH_LIST": "8.0;9.0+PTX",
        # By default it is compiled in the home directory, where one node's lock blocks all others.
        "TORCH_EXTENSIONS_DIR": str(node_local_folder()),
    }
    train = {
        # Kernels start in the order in which Megatron launches them: its overlap of communication depends on that.
        "CUDA_DEVICE_MAX_CONNECTIONS": "1",
        # flex-attention is compiled; by default below the user's name, which a user id of a container may not have.
        "TORCHINDUCTOR_CACHE_DIR": str(node_folder() / "torchinductor"),
    }
    return common | (train if kind == "train" else {}) | _of_a_nameless_user()


def _of_a_nameless_user() -> dict[str, str]:
    """What libraries ask about the user while they are imported, where this machine does not know it."""
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        return {"HOME": str(node_folder() / "home"), "USER": str(os.getuid())}
    return {}


def set_defaults(kind: Literal["train", "rollout"], environment: MutableMapping[str, str] = os.environ) -> None:
    """Add what is missing; before torch is imported."""
    for name, value in defaults(kind).items():
        if not environment.get(name):
            environment[name] = value


def hide_gpus(environment: MutableMapping[str, str] = os.environ) -> None:
    """Hide all GPUs where the script of a job says so; before torch is imported.

    srun takes an empty CUDA_VISIBLE_DEVICES out of the environment of a step that has no GPU.
    """
    if environment.pop(WITHOUT_GPUS, ""):
        environment["CUDA_VISIBLE_DEVICES"] = ""
