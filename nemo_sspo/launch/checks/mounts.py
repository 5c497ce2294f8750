"""Checks that paths of an experiment are visible, and downloads persist, inside the images of its stages."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from nemo_sspo.artifacts.sources.models import is_hub_id
from nemo_sspo.config.cluster import SlurmCluster
from nemo_sspo.config.environments import SlurmEnvironment
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.errors import UserError
from nemo_sspo.launch.plan import plan
from nemo_sspo.oracle.pairrm.checkpoint import inspect_pairrm
from nemo_sspo.stages.runner.registry import STAGES
from nemo_sspo.stages.runner.settings import source_settings

_MODELS = ("policy", "oracle.path", "encoder.path")


def check_mounts(experiment: Experiment) -> Iterator[str]:
    """Every path that a stage in an image reads lies below a directory that is mounted there; so does what it links to.

    A name that is no path here (a hub id, a data set id) is none.
    """
    unseen: dict[tuple[str, Path, str], tuple[list[str], list[Path]]] = {}
    for stage, kind, environment in _in_images(experiment):
        seen = _mounted(experiment, environment)
        for key, value in source_settings(experiment, stage).items():
            if (path := _outside(Path(value), seen)) is not None:
                unseen.setdefault((key, path, kind), ([], seen))[0].append(stage)
    for (key, path, name), (stages, seen) in unseen.items():
        folder = path if path.is_dir() else path.parent
        yield (
            f"{key}: {path} is not seen in the image of {', '.join(stages)}, which has {', '.join(map(str, seen))}; "
            f"add {folder}:{folder} to cluster.{name}.mounts, or give a path below one of these"
        )


def check_downloads(experiment: Experiment) -> Iterator[str]:
    """A model named by its hub id is downloaded to where the next task in an image finds it: below a mount."""
    lost: dict[tuple[str, str, str], tuple[list[str], list[Path]]] = {}
    for stage, kind, environment in _in_images(experiment):
        seen = _mounted(experiment, environment)
        cache = _hub_cache(environment)
        if cache is not None and any(cache.is_relative_to(folder) for folder in seen):
            continue
        for key, value in source_settings(experiment, stage).items():
            if key in _MODELS and (hub_id := hub_id_of(key, value)):
                lost.setdefault((key, hub_id, kind), ([], seen))[0].append(stage)
    for (key, hub_id, name), (stages, seen) in lost.items():
        yield (
            f"{key}: {hub_id} is a hub id, which every task of {', '.join(stages)} would download into its own "
            f"container; give a directory, or set cluster.{name}.variables.HF_HOME to one below "
            f"{', '.join(map(str, seen))}"
        )


def hub_id_of(key: str, value: str) -> str | None:
    """What a model's setting has a stage fetch: its hub id, or that of the backbone that a local PairRM names."""
    if is_hub_id(value):
        return value
    if key != "oracle.path" or not (Path(value) / "config.json").is_file():
        return None
    try:
        backbone = inspect_pairrm(value).backbone
    except UserError:
        return None  # another kind of oracle, or a broken one, which its own check reports
    return None if Path(backbone).is_dir() else backbone


def _in_images(experiment: Experiment) -> Iterator[tuple[str, Literal["train", "rollout"], SlurmEnvironment]]:
    """(stage, its environment's name, its environment) of all that run in an image."""
    if not isinstance(experiment.cluster, SlurmCluster):
        return
    for stage in dict.fromkeys(step.stage for step in plan(experiment)):
        kind = STAGES[stage].environment
        environment = experiment.cluster.environment_of(stage, kind)
        if environment.image is not None:
            yield stage, kind, environment


def _hub_cache(environment: SlurmEnvironment) -> Path | None:
    """Where the hub's client keeps what it downloads; jobs inherit the variables of the shell that submits.

    None: in the home directory, which the jobs' options keep pyxis from mounting.
    """
    variables = {**os.environ, **environment.variables}
    if named := variables.get("HF_HUB_CACHE") or variables.get("HF_HOME"):
        return Path(named)
    return Path(os.path.expanduser("~")) / ".cache" / "huggingface" if environment.container == "apptainer" else None


def _mounted(experiment: Experiment, environment: SlurmEnvironment) -> list[Path]:
    """Directories inside of an image that are this cluster's, by the paths they have in there."""
    own = [Path.cwd(), experiment.run_dir.absolute()]
    if environment.container == "apptainer":  # unless its configuration says otherwise
        own.append(Path(os.path.expanduser("~")))
    given = [Path(mount.split(":")[1]) for mount in environment.mounts if ":" in mount]
    return list(dict.fromkeys([*own, *given]))


def _outside(named: Path, seen: Sequence[Path]) -> Path | None:
    """The path, or its link target, that is missing in the image."""
    if not named.exists():
        return None
    for path in (named.absolute(), named.resolve()):
        if not any(path.is_relative_to(folder) for folder in seen):
            return path
    return None
