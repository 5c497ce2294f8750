"""The GPUs of this machine."""

from nemo_sspo.config.cluster import LocalCluster
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.errors import UserError
from nemo_sspo.visible_gpus import visible_gpus


def local_cluster(experiment: Experiment) -> LocalCluster:
    """The experiment's cluster, which must be this machine."""
    if not isinstance(experiment.cluster, LocalCluster):
        raise UserError(
            f"cluster.kind={experiment.cluster.kind}: `nemo-sspo run` uses this machine alone; use `nemo-sspo submit`, "
            "or give cluster=local_gpu"
        )
    return experiment.cluster


def gpus_to_use(cluster: LocalCluster) -> tuple[str, ...]:
    """Names of the GPUs to use, as CUDA_VISIBLE_DEVICES takes them: those that this process sees, `cluster.gpus` at
    most; as many as that where none is found."""
    if cluster.gpus == 0:
        return ()
    return visible_gpus()[: cluster.gpus] or tuple(map(str, range(cluster.gpus or 0)))
