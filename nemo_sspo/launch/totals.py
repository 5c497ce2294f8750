"""What a run will take in all: jobs and tasks, GPU-hours at most, disk, and optimizer steps at most.

Of what is published nothing is counted.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path

from nemo_sspo.artifacts.sources.weight_files import weight_bytes, weight_files
from nemo_sspo.artifacts.sources.weight_headers import model_headers
from nemo_sspo.artifacts.store import is_published
from nemo_sspo.config.cluster import SlurmCluster
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.errors import UserError
from nemo_sspo.launch.checks.prompts import planned_prompts
from nemo_sspo.launch.plan import Step, plan
from nemo_sspo.launch.slurm.jobs import Job, jobs
from nemo_sspo.launch.slurm.report_step import is_done
from nemo_sspo.launch.stale import freshness_of
from nemo_sspo.megatron.batches.batch_plan import steps_per_epoch
from nemo_sspo.stages.runner.freshness import Freshness

_GIB = 2**30
_NAMED = 3
_STATE_BYTES = 14
"""Of a parameter in a state to resume from: its bf16 weight, and in fp32 its master copy and Adam's two moments."""
_COPIES = {"import_policy": 1, "export_candidate": 1, "export": 1}


@dataclass(frozen=True)
class GpuHours:
    """What the time limits allow."""

    at_most: float
    """Of the jobs that have a limit, each task begun once."""
    unlimited: tuple[str, ...]
    """Jobs on GPUs whose limit is the partition's own."""


@dataclass(frozen=True)
class Totals:
    """Of what is still to be run; None where it is not known here, or does not apply to this cluster."""

    steps: int
    jobs: int | None
    tasks: int | None
    gpu_hours: GpuHours | None
    weight_bytes: int | None
    state_bytes: int | None
    """Of states to resume from, at most, while an iteration trains."""
    optimizer_steps: int | None
    """At most."""

    @classmethod
    def of(cls, experiment: Experiment) -> "Totals":
        """Count what is missing of a run."""
        freshness, cluster = freshness_of(experiment), experiment.cluster
        missing = [step for step in plan(experiment) if freshness.standing(step.output) != "current"]
        tasks, hours = None, None
        if isinstance(cluster, SlurmCluster):
            graph = jobs(experiment)
            tasks = {job.name: _tasks(job, freshness) for job in graph}
            hours = gpu_hours(graph, tasks, cluster) if cluster.has_gpus else None
        weights = bytes_to_publish(experiment, missing) if weight_bytes(Path(experiment.policy)) else None
        states = steps = None
        if weights is not None:
            with suppress(UserError):  # weights that cannot be read, which their own check says
                states = state_bytes(experiment, missing)
        with suppress(UserError, OSError):  # prompts that cannot be read, which their own check says
            steps = optimizer_steps(experiment, missing)
        return cls(
            steps=len(missing),
            jobs=None if tasks is None else sum(map(bool, tasks.values())),
            tasks=None if tasks is None else sum(tasks.values()),
            gpu_hours=hours,
            weight_bytes=weights,
            state_bytes=states,
            optimizer_steps=steps,
        )


def totals(experiment: Experiment) -> list[str]:
    """Lines for people: what is still to be run, what that may take, and the disk that it fills."""
    found = Totals.of(experiment)
    if not found.steps:
        return ["nothing is left to run: every step is published"]
    if found.jobs is None or found.tasks is None:
        counted = f"{_some(found.steps, 'step')} to run, on this machine without a time limit"
    else:
        counted = f"{_some(found.jobs, 'job')}, {_some(found.tasks, 'task')} to run"
    if found.gpu_hours is not None:
        counted += f"; {_hours(found.gpu_hours)}"
    disk = f"disk: not known here, where policy={experiment.policy} has no weights"
    if found.weight_bytes is not None:
        disk = f"disk: {found.weight_bytes / _GIB:,.2f} GiB of weights, besides responses"
    if found.state_bytes:
        disk += f"; at most {found.state_bytes / _GIB:,.2f} GiB more of states while an iteration trains"
    lines = [counted, disk]
    if found.optimizer_steps:
        epochs = _some(experiment.train.train_epochs, "epoch")
        lines.append(f"training: at most {_some(found.optimizer_steps, 'optimizer step')}, {epochs} in each iteration")
    return lines


def gpu_hours(graph: Sequence[Job], tasks: dict[str, int], cluster: SlurmCluster) -> GpuHours:
    """Time limits times GPUs of so many tasks of each job; nodes that are taken whole count with all their GPUs."""
    seconds, unlimited = 0, []
    for job in graph:
        if not job.gpus_per_node or not tasks[job.name]:
            continue
        if job.resources.seconds is None:
            unlimited.append(job.name)
            continue
        gpus = cluster.gpus_per_node if cluster.request_gpus == "exclusive" else job.gpus_per_node
        seconds += tasks[job.name] * job.nodes * gpus * job.resources.seconds
    return GpuHours(seconds / 3600, tuple(unlimited))


def bytes_to_publish(experiment: Experiment, missing: Sequence[Step] | None = None) -> int:
    """A lower bound of what is still to be written: one copy of the weights per checkpoint and per export."""
    copies = _COPIES | {"train": experiment.selection.candidates}
    steps = [step for step in plan(experiment) if not is_published(step.output)] if missing is None else missing
    return weight_bytes(Path(experiment.policy)) * sum(copies.get(step.stage, 0) for step in steps)


def state_bytes(experiment: Experiment, missing: Sequence[Step]) -> int:
    """An upper bound of what a training's states take until it ends: those that are kept, and the one being written."""
    saves = experiment.train.checkpoint_every_steps is not None or isinstance(experiment.cluster, SlurmCluster)
    if not saves or not any(step.stage == "train" for step in missing):
        return 0
    tensors = model_headers(weight_files(Path(experiment.policy))).values()
    return (experiment.train.keep_states + 1) * _STATE_BYTES * sum(prod(tensor.shape) for tensor in tensors)


def optimizer_steps(experiment: Experiment, missing: Sequence[Step]) -> int | None:
    """An upper bound of those still to be taken, as if every prompt had a pair; None where prompts are not known here.

    Raises:
        UserError: the prompts cannot be read.
    """
    planned, train = planned_prompts(experiment), experiment.train
    if planned is None or len(planned.portions) < experiment.iterations:
        return None
    pairs = [planned.portions[step.iteration - 1] for step in missing if step.stage == "train"]
    return sum(steps_per_epoch(number, train.global_batch_size) * train.train_epochs for number in pairs)


def _tasks(job: Job, freshness: Freshness) -> int:
    return sum(not all(is_done(step, freshness) for step in batch) for batch in job.shard_batches)


def _hours(hours: GpuHours) -> str:
    limited = f"at most {hours.at_most:,.1f} GPU-hours (time limits x GPUs, each task begun once)"
    if not hours.unlimited:
        return limited
    more = f" and {len(hours.unlimited) - _NAMED} more" if len(hours.unlimited) > _NAMED else ""
    return f"{limited}, without {', '.join(hours.unlimited[:_NAMED])}{more}: no time limit here (cluster.time)"


def _some(number: int, name: str) -> str:
    return f"{number:,} {name}{'' if number == 1 else 's'}"
