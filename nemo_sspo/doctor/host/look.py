"""All that is looked at on this host; no interpreter is asked."""

from collections.abc import Iterator
from pathlib import Path

from nemo_sspo.config.cluster import SlurmCluster
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.doctor.check import Check, not_run
from nemo_sspo.doctor.host.clock import clock_checks
from nemo_sspo.doctor.host.extensions import extension_checks
from nemo_sspo.doctor.host.file_system import file_system_checks
from nemo_sspo.doctor.host.gpus import gpu_checks
from nemo_sspo.doctor.host.hub import hub_checks
from nemo_sspo.doctor.host.network import network_checks
from nemo_sspo.doctor.host.room import room_checks
from nemo_sspo.doctor.host.slurm import slurm_checks
from nemo_sspo.doctor.host.variables import variable_checks


def host_checks(experiment: Experiment) -> list[Check]:
    """Every subject's checks. One that the system refuses to show is `not run`, and stops no other."""
    runs_dir = Path(experiment.runs_dir)
    cluster, ranks = experiment.cluster, experiment.parallel.world_size
    on_slurm = isinstance(cluster, SlurmCluster)
    many_nodes = isinstance(cluster, SlurmCluster) and ranks > (
        cluster.ranks_per_node or cluster.gpus_per_node or ranks
    )
    subjects = {
        "GPUs": gpu_checks(),
        "variables": variable_checks(experiment),
        "network": network_checks(experiment, many_nodes=many_nodes),
        "compiled extensions": extension_checks(experiment),
        "room": room_checks(experiment),
        "file system": file_system_checks(runs_dir, many_nodes=on_slurm),
        "clock": clock_checks(runs_dir),
        "hub": hub_checks(experiment),
        "Slurm": slurm_checks(experiment),
    }
    return [check for name, checks in subjects.items() for check in _seen(name, checks)]


def _seen(name: str, checks: Iterator[Check]) -> Iterator[Check]:
    try:
        yield from checks
    except OSError as error:
        yield not_run(name, f"the system refuses to show it ({error.strerror or type(error).__name__})")
