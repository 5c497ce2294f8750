"""What a run will take in all: jobs and tasks, GPU-hours at most, disk, and optimizer steps at most.

Of what is published nothing is counted.
"""

from collections.abc import Iterator, Sequence
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


def totals(experiment: Experiment) -> list[str]:
    """Lines for people: what is still to be run, what that may take, and the disk that it fills."""
    freshness = freshness_of(experiment)
    missing = [step for step in plan(experiment) if freshness.standing(step.output) != "current"]
    if not missing:
        return ["nothing is left to run: every step is published"]
    if not isinstance(experiment.cluster, SlurmCluster):
        counted = f"{_some(len(missing), 'step')} to run, on this machine without a time limit"
        return [counted, _disk(experiment, missing), *_training(experiment, missing)]
    graph = jobs(experiment)
    tasks = {job.name: _tasks(job, freshness) for job in graph}
    counted = f"{_some(sum(map(bool, tasks.values())), 'job')}, {_some(sum(tasks.values()), 'task')} to run"
    if experiment.cluster.has_gpus:
        counted += f"; {_hours(gpu_hours(graph, tasks, experiment.cluster))}"
    return [counted, _disk(experiment, missing), *_training(experiment, missing)]


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


def _disk(experiment: Experiment, missing: Sequence[Step]) -> str:
    return "; ".join(_needs(experiment, missing))


def _needs(experiment: Experiment, missing: Sequence[Step]) -> Iterator[str]:
    if not weight_bytes(Path(experiment.policy)):
        yield f"disk: not known here, where policy={experiment.policy} has no weights"
        return
    yield f"disk: {bytes_to_publish(experiment, missing) / _GIB:,.2f} GiB of weights, besides responses"
    with suppress(UserError):  # weights that cannot be read, which their own check says
        if states := state_bytes(experiment, missing):
            yield f"at most {states / _GIB:,.2f} GiB more of states while an iteration trains"


def _training(experiment: Experiment, missing: Sequence[Step]) -> Iterator[str]:
    with suppress(UserError, OSError):  # prompts that cannot be read, which their own check says
        if steps := optimizer_steps(experiment, missing):
            epochs = _some(experiment.train.train_epochs, "epoch")
            yield f"training: at most {_some(steps, 'optimizer step')}, {epochs} in each iteration"


def _some(number: int, name: str) -> str:
    return f"{number:,} {name}{'' if number == 1 else 's'}"
