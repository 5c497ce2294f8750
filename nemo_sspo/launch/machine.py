"""What the machine offers: its GPUs, found without loading a driver library."""

import os
from pathlib import Path

from nemo_sspo.config.cluster import LocalCluster
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.errors import UserError

_DRIVER_GPUS = Path("/proc/driver/nvidia/gpus")


def local_cluster(experiment: Experiment) -> LocalCluster:
    """The experiment's cluster, which must be this machine."""
    if not isinstance(experiment.cluster, LocalCluster):
        raise UserError(
            f"cluster.kind={experiment.cluster.kind}: `nemo-sspo run` uses this machine alone; use `nemo-sspo submit`, "
            "or give cluster=local_gpu"
        )
    return experiment.cluster


def visible_gpus(cluster: LocalCluster) -> tuple[str, ...]:
    """Names of the GPUs to use, as CUDA_VISIBLE_DEVICES takes them: those configured, else those this process sees."""
    if cluster.gpus == 0:
        return ()
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is not None:
        names = tuple(name.strip() for name in allowed.split(",") if name.strip() not in ("", "-1"))
    else:
        present = len(list(_DRIVER_GPUS.iterdir())) if _DRIVER_GPUS.is_dir() else 0
        names = tuple(map(str, range(max(present, cluster.gpus or 0))))
    return names[: cluster.gpus]
