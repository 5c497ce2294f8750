"""What a table's runs will take: steps, tasks, and GPU-hours at most, without what is published or shared."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from nemo_sspo.config.cluster import SlurmCluster
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.launch.plan import Step
from nemo_sspo.launch.slurm.jobs import jobs
from nemo_sspo.launch.stale import freshness_of
from nemo_sspo.launch.totals import gpu_hours
from nemo_sspo.reproduce.sharing import shared_steps
from nemo_sspo.words import counted


@dataclass(frozen=True)
class RunWork:
    """A run of a table, and what is left of it."""

    name: str
    experiment: Experiment
    steps: tuple[Step, ...]
    """That the table reads, and all that those read."""
    missing: tuple[Step, ...]
    """Of these, neither published nor made by a run before it."""
    shared: Mapping[str, int]
    """Steps that are not made again, by the run that makes them."""


def work_of(runs: Mapping[str, Experiment], steps: Mapping[str, Sequence[Step]]) -> list[RunWork]:
    """Every run with what it has to make itself, in their order."""
    found: list[RunWork] = []
    for name, experiment in runs.items():
        freshness = freshness_of(experiment)
        left = [step for step in steps[name] if freshness.standing(step.output) != "current"]
        shared: dict[str, int] = {}
        for earlier in found:
            made = {step.step_id for step in earlier.steps} & shared_steps(experiment, earlier.experiment)
            taken = [step for step in left if step.step_id in made]
            if taken:
                shared[earlier.name] = len(taken)
                left = [step for step in left if step.step_id not in made]
        found.append(RunWork(name, experiment, tuple(steps[name]), tuple(left), shared))
    return found


def summary(work: Sequence[RunWork]) -> str:
    """In a line."""
    left = sum(len(run.missing) for run in work)
    said = f"{counted(sum(bool(run.missing) for run in work), 'run')}, {counted(left, 'step')} to run"
    limited = [_gpu_hours(run.experiment, {step.step_id for step in run.missing}) for run in work]
    hours = [each for each in limited if each is not None]
    return f"{said}; at most {sum(hours):,.1f} GPU-hours by the time limits" if hours and left else said


def _gpu_hours(experiment: Experiment, missing: Set[str]) -> float | None:
    """None where no job has a limit: on one machine."""
    if not isinstance(experiment.cluster, SlurmCluster) or not experiment.cluster.has_gpus:
        return None
    graph = jobs(experiment)
    tasks = {
        job.name: sum(any(step.step_id in missing for step in batch) for batch in job.shard_batches) for job in graph
    }
    return gpu_hours(graph, tasks, experiment.cluster).at_most
