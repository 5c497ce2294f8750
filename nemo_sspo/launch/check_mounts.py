"""Checks that what an experiment names on disk is seen from inside the images that its stages run in."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from nemo_sspo.config.cluster import SlurmCluster, SlurmEnvironment
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.launch.plan import plan
from nemo_sspo.stages.registry import STAGES, source_settings


def check_mounts(experiment: Experiment) -> Iterator[str]:
    """Every path that a stage in an image reads lies below a directory that is mounted there; so does what it links to.

    A name that is no path here (a hub id, a data set id) is left to the stage.
    """
    if not isinstance(experiment.cluster, SlurmCluster):
        return
    unseen: dict[tuple[str, Path, str], tuple[list[str], list[Path]]] = {}
    for stage in dict.fromkeys(step.stage for step in plan(experiment)):
        kind = STAGES[stage].environment
        environment = experiment.cluster.environment_of(stage, kind)
        if environment.image is None:
            continue
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


def _mounted(experiment: Experiment, environment: SlurmEnvironment) -> list[Path]:
    """Directories inside of an image that are this cluster's, by the paths they have in there."""
    own = [Path.cwd(), experiment.run_dir.absolute()]
    if environment.container == "apptainer":  # unless its configuration says otherwise
        own.append(Path.home())
    given = [Path(mount.split(":")[1]) for mount in environment.mounts if ":" in mount]
    return list(dict.fromkeys([*own, *given]))


def _outside(named: Path, seen: Sequence[Path]) -> Path | None:
    """The path, or where it leads, if the image has it not."""
    if not named.exists():
        return None
    for path in (named.absolute(), named.resolve()):
        if not any(path.is_relative_to(folder) for folder in seen):
            return path
    return None
