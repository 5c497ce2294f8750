"""What lies elsewhere: on the hub, in an image, on a cluster. A dry run says that it has not looked there."""

import os
import shutil
from collections.abc import Iterator

from nemo_sspo.artifacts.sources.models import offline_problem
from nemo_sspo.artifacts.sources.records import is_on_disk
from nemo_sspo.config.cluster import SlurmCluster
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.launch.checks.environments import record_sources, starts_here
from nemo_sspo.launch.checks.mounts import hub_id_of
from nemo_sspo.launch.checks.oracle import oracle_paths
from nemo_sspo.stages.runner.importable import Kind

_FIRST_JOBS: dict[Kind, str] = {"rollout": "prepare_prompts", "train": "import_policy"}
"""The first stage of each environment, which refuses what a dry run would refuse."""


def check_hub(experiment: Experiment) -> Iterator[str]:
    """A hub id can be reached by every environment of this machine that reads it, or lies in its cache."""
    for setting, hub_id, kinds in hub_ids(experiment):
        here = (getattr(experiment.cluster, kind) for kind in kinds)
        found = (
            offline_problem(hub_id, setting, {**os.environ, **environment.variables})
            for environment in here
            if starts_here(environment)
        )
        yield from (problem for problem in [next(filter(None, found), None)] if problem)


def not_checked(experiment: Experiment) -> list[str]:
    """What the first job finds out, one line each."""
    return [*_hub_notes(experiment), *_environment_notes(experiment), *_slurm_notes(experiment)]


def hub_ids(experiment: Experiment) -> Iterator[tuple[str, str, tuple[Kind, ...]]]:
    """(setting, hub id, environments that read it) of every model, or backbone of a PairRM, that is no directory."""
    named: tuple[tuple[str, str, tuple[Kind, ...]], ...] = (
        ("policy", experiment.policy, ("train", "rollout")),
        *(("oracle.path", path, ("rollout",)) for path in oracle_paths(experiment)),
        ("encoder.path", experiment.encoder.path, ("rollout",)),
    )
    for setting, path, kinds in named:
        if hub_id := hub_id_of(setting, path):
            yield setting, hub_id, kinds


def _hub_notes(experiment: Experiment) -> Iterator[str]:
    for setting, hub_id, _ in hub_ids(experiment):
        yield (
            f"{setting}={hub_id}: no such directory here, so it is taken for a hub id; not checked here: its files, "
            "which the first job that reads them fetches"
        )
    for source in record_sources(experiment):
        if not is_on_disk(source):
            yield f"{source}: no such file here, so it is taken for a data set id; not checked here: its records"


def _environment_notes(experiment: Experiment) -> Iterator[str]:
    for kind, first in _FIRST_JOBS.items():
        if not starts_here(environment := getattr(experiment.cluster, kind)):
            where = environment.image or "environment modules"
            yield f"not checked here: the packages of cluster.{kind}, which are in {where}; {first} checks them"


def _slurm_notes(experiment: Experiment) -> Iterator[str]:
    if isinstance(experiment.cluster, SlurmCluster) and shutil.which("sbatch") is None:
        yield "not checked here: whether Slurm takes the jobs; there is no sbatch here, submit where it is"
