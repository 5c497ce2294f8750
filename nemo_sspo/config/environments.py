"""Where the stages of one kind find their interpreter and packages."""

import re
from typing import Literal

from pydantic import field_validator

from nemo_sspo.config.base import Frozen

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SECRET = re.compile(r"TOKEN$|SECRET$|PASSWORD$|PASSWD$|CREDENTIALS?$|(^|_|API)KEY$", re.IGNORECASE)
_LOGIN = re.compile(r"://[^/@\s]*:[^/@\s]+@")

RANK_VARIABLES = (
    *("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "NODE_RANK", "NODE_COUNT"),
    *("GROUP_RANK", "GROUP_WORLD_SIZE", "ROLE_RANK", "ROLE_WORLD_SIZE", "ROLE_NAME", "MASTER_ADDR", "MASTER_PORT"),
    *("TORCHELASTIC_RUN_ID", "TORCHELASTIC_USE_AGENT_STORE", "TORCHELASTIC_RESTART_COUNT"),
    *("TORCHELASTIC_MAX_RESTARTS", "TORCHELASTIC_ERROR_FILE"),
)
"""Variables that a launcher of ranks sets: each process has its own, or none."""

SCRIPT_VARIABLES = frozenset(
    {"run", "task", "job", "restart", "attempt", "step", "history", "before", "ends", "signal", "launched", "signalled"}
    | {"code", "crashes", "first"}
)
"""Shell variables of slurm/stage.sbatch.j2, which an environment's would replace."""


class Environment(Frozen):
    python: str
    """Interpreter of the environment."""
    variables: dict[str, str] = {}
    """Environment variables of its stages; never secrets, which are inherited from the caller's environment."""

    @field_validator("variables")
    @classmethod
    def _no_secrets(cls, variables: dict[str, str]) -> dict[str, str]:
        """They are stored with the run, and the same for all of its processes."""
        for name, value in variables.items():
            if name in RANK_VARIABLES or name == "CUDA_VISIBLE_DEVICES":
                raise ValueError(f"{name} is set for each process by what starts it; remove it")
            if _SECRET.search(name):
                raise ValueError(f"{name} looks like a secret: export it in the calling shell, stages inherit it")
            if _LOGIN.search(value):
                raise ValueError(f"{name} holds a password in a URL: export it in the calling shell, stages inherit it")
        return variables


class SlurmEnvironment(Environment):
    python: str = "python"
    """Interpreter: a path that every node sees, or a name inside the image."""
    container: Literal["pyxis", "apptainer"] = "pyxis"
    """What starts `image`: Slurm's pyxis/enroot plugin, or `apptainer exec` under srun."""
    image: str | None = None
    """Container image: a registry name with a tag, or the path of a .sqsh or .sif file; without it, no container."""
    mounts: tuple[str, ...] = ()
    """Directories mounted besides the run's and the working directory, each ``host:container``."""
    modules: tuple[str, ...] = ()
    """Environment modules loaded on the node, in this order (``module load``)."""
    setup_file: str | None = None
    """Shell file that is sourced on the node before modules are loaded, e.g. /etc/profile.d/modules.sh."""

    @field_validator("variables")
    @classmethod
    def _can_be_exported(cls, variables: dict[str, str]) -> dict[str, str]:
        for name, value in variables.items():
            if not _VARIABLE.fullmatch(name):
                raise ValueError(f"{name!r} is no name of an environment variable")
            if name in SCRIPT_VARIABLES or name.startswith(("SLURM_", "NEMO_SSPO_")):
                raise ValueError(f"{name} is Slurm's or the job script's own variable")
            if "\0" in value:
                raise ValueError(f"the value of {name} holds a zero byte")
        return variables
