"""The steps of a run as jobs of a Slurm cluster: what each asks for and what it waits for.

The shards of a stage are one job array, whose tasks are shard batches. A task's samples are scored as soon as the task
ends: where two arrays correspond task by task the dependency is ``aftercorr``, otherwise ``afterok``.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any, Literal

from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.artifacts.sources.weight_files import weight_bytes
from nemo_sspo.config.cluster import Resources, SlurmCluster, StageResources
from nemo_sspo.config.environments import SlurmEnvironment
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.errors import UserError
from nemo_sspo.launch.plan import Step, plan
from nemo_sspo.launch.shard_batches import ShardBatch, shard_batches
from nemo_sspo.launch.slurm.report_step import REPORT, report_step
from nemo_sspo.megatron.models.families import read_hf_config
from nemo_sspo.megatron.models.host_memory import host_bytes
from nemo_sspo.megatron.models.shape import Shape
from nemo_sspo.stages.runner.registry import STAGES


@dataclass(frozen=True)
class Dependency:
    """A job that another one waits for."""

    job: str
    kind: Literal["afterok", "aftercorr", "afterany"]


@dataclass(frozen=True)
class Job:
    """All steps of one stage and iteration."""

    name: str
    """``iter_1.rollout``; as a Slurm job, with the run's name before it."""
    stage: str
    iteration: int
    steps: tuple[Step, ...]
    shard_batches: tuple[ShardBatch, ...]
    """The steps of each task, in the order of the tasks' numbers in an array, which count from 0."""
    nodes: int
    tasks_per_node: int
    """Processes that srun starts on each node."""
    gpus_per_node: int
    environment: SlurmEnvironment
    environment_name: str
    resources: Resources
    after: tuple[Dependency, ...]

    @property
    def is_array(self) -> bool:
        """Whether it is submitted as a job array, one task per shard batch."""
        return STAGES[self.stage].sharded

    @property
    def shards_per_task(self) -> int:
        """Of every task but the last one, which may have fewer."""
        return len(self.shard_batches[0])

    @property
    def saves_state(self) -> bool:
        """Whether its processes save their state when Slurm stops them."""
        return STAGES[self.stage].saves_state

    @property
    def cpus_per_task(self) -> int | None:
        """Cores of each process, which drives a rank's GPU or all of an engine's; None where Slurm decides."""
        cores = self.resources.cpus_per_task
        return cores and cores * max(1, self.gpus_per_node // self.tasks_per_node)

    @property
    def has_ranks(self) -> bool:
        """Whether its processes are the ranks of the training layout."""
        return STAGES[self.stage].ranks


def jobs(experiment: Experiment) -> tuple[Job, ...]:
    """Every job of a run, each after those it waits for; the last one draws the report.

    Raises:
        UserError: the cluster is no Slurm cluster, or cannot hold a stage.
    """
    cluster = slurm_cluster(experiment)
    if problem := next(cluster_problems(experiment), None):
        raise UserError(problem)
    grouped: dict[str, list[Step]] = {}
    steps = plan(experiment)
    for step in steps:
        grouped.setdefault(job_name(step), []).append(step)
    grouped[REPORT] = [report_step(RunLayout(experiment.run_dir), steps)]
    return tuple(_job(name, tuple(steps), grouped, experiment, cluster) for name, steps in grouped.items())


def slurm_cluster(experiment: Experiment) -> SlurmCluster:
    """The experiment's cluster, which must be of kind slurm."""
    if not isinstance(experiment.cluster, SlurmCluster):
        raise UserError(
            f"cluster.kind={experiment.cluster.kind}: no Slurm cluster; give cluster=<site> (slurm/README.md), or use "
            "`nemo-sspo run` for this machine"
        )
    return experiment.cluster


def job_name(step: Step) -> str:
    """The job that a step belongs to."""
    return step.stage if step.stage == "prepare_prompts" else f"iter_{step.iteration}.{step.stage}"


def _job(
    name: str, steps: tuple[Step, ...], grouped: dict[str, list[Step]], experiment: Experiment, cluster: SlurmCluster
) -> Job:
    first = steps[0]
    nodes, per_node = _shape(first, experiment, cluster)
    return Job(
        name=name,
        stage=first.stage,
        iteration=first.iteration,
        steps=steps,
        shard_batches=_shard_batches(steps, cluster),
        nodes=nodes,
        tasks_per_node=per_node if STAGES[first.stage].ranks and cluster.launcher == "srun" else 1,
        gpus_per_node=0 if not first.gpus else per_node if STAGES[first.stage].ranks else first.gpus,
        environment=cluster.environment_of(first.stage, first.environment),
        environment_name=first.environment,
        resources=_resources(first, experiment, cluster),
        after=tuple(_dependencies(steps, grouped, cluster)),
    )


def _resources(step: Step, experiment: Experiment, cluster: SlurmCluster) -> Resources:
    wanted = cluster.resources_of(step.stage, on_gpus=step.gpus > 0)
    own: Resources = getattr(cluster.stages, step.stage)
    if not cluster.has_gpus or not STAGES[step.stage].converts_policy or own.memory is not None:
        return wanted
    return wanted.model_copy(update={"memory": _conversion_memory(experiment)})


def _conversion_memory(experiment: Experiment) -> str:
    """What the conversion of the policy holds, and the libraries; all of a node where the policy lies nowhere here."""
    policy = Path(experiment.policy)
    if not (stored := weight_bytes(policy)):
        return "0"
    try:
        shape = Shape.of(read_hf_config(policy))
    except UserError:  # which the checks of a run report
        return "0"
    value_bytes = max(4 if experiment.precision.kind == "fp32" else 2, ceil(stored / sum(shape.sizes())))
    return f"{ceil(host_bytes(shape, value_bytes) / 2**30)}G"


def _shard_batches(steps: Sequence[Step], cluster: SlurmCluster) -> tuple[ShardBatch, ...]:
    return tuple(shard_batches(steps, lambda step: cluster.resources_of(step.stage).shards_per_task or 1))


def _shape(step: Step, experiment: Experiment, cluster: SlurmCluster) -> tuple[int, int]:
    """(nodes, ranks on each): full nodes, or a part of one."""
    if not STAGES[step.stage].ranks:
        return 1, 1
    per_node = cluster.ranks_per_node or cluster.gpus_per_node or step.ranks
    return (1, step.ranks) if step.ranks <= per_node else (step.ranks // per_node, per_node)


def _dependencies(steps: Sequence[Step], grouped: dict[str, list[Step]], cluster: SlurmCluster) -> Iterator[Dependency]:
    """Task by task where a task reads what one task of the other array publishes; on the whole job elsewhere."""
    names = {step.step_id: name for name, group in grouped.items() for step in group}
    for parent in dict.fromkeys(names[step_id] for step in steps for step_id in step.depends_on):
        group = grouped[parent]
        read = [
            {step_id for step in batch for step_id in step.depends_on if names[step_id] == parent}
            for batch in _shard_batches(steps, cluster)
        ]
        published = [{step.step_id for step in batch} for batch in _shard_batches(group, cluster)]
        task_by_task = all(STAGES[item.stage].sharded for item in (steps[0], group[0])) and read == published
        if not STAGES[steps[0].stage].publishes:  # a run that failed is drawn too
            yield Dependency(parent, "afterany")
        else:
            yield Dependency(parent, "aftercorr" if task_by_task else "afterok")


def cluster_problems(experiment: Experiment, seconds_per_step: float | None = None) -> Iterator[str]:
    """Reasons why this experiment cannot run on its Slurm cluster.

    Args:
        seconds_per_step: measured seconds of an optimizer step; without it, the cluster's estimate.
    """
    cluster, parallel = slurm_cluster(experiment), experiment.parallel
    if cluster.has_gpus and experiment.engine.tensor_parallel > cluster.gpus_per_node:
        yield (
            f"engine.tensor_parallel={experiment.engine.tensor_parallel} is more than "
            f"cluster.gpus_per_node={cluster.gpus_per_node}: an engine lives on one node; lower it"
        )
    per_node = cluster.ranks_per_node or cluster.gpus_per_node
    if cluster.has_gpus and per_node > cluster.gpus_per_node:
        yield f"cluster.ranks_per_node={per_node} is more than cluster.gpus_per_node={cluster.gpus_per_node}; lower it"
    if per_node and parallel.world_size > per_node and parallel.world_size % per_node:
        yield (
            f"tensor x pipeline x context x data = {parallel.world_size} ranks do not fill whole nodes of {per_node}; "
            "change parallel.* or cluster.ranks_per_node"
        )
    yield from _time_problems(experiment, cluster, seconds_per_step or cluster.seconds_per_step)


def array_problems(graph: Sequence[Job], max_array_size: int) -> Iterator[str]:
    """Arrays of more tasks than Slurm numbers: the largest number is one less than `max_array_size`."""
    for job in graph:
        if job.is_array and len(job.shard_batches) > max_array_size:
            yield (
                f"{job.name}: {len(job.shard_batches)} tasks, and this cluster's arrays have at most {max_array_size} "
                f"(MaxArraySize); raise cluster.shards_per_task={job.shards_per_task}, or lower rollout.shards"
            )


def _time_problems(experiment: Experiment, cluster: SlurmCluster, seconds_per_step: float | None) -> Iterator[str]:
    for stage in StageResources.model_fields:
        limit = cluster.resources_of(stage, on_gpus=STAGES[stage].gpu).seconds
        if limit is not None and limit <= cluster.signal_seconds:
            yield (
                f"cluster.stages.{stage}: a time limit of {limit} s leaves nothing after "
                f"cluster.signal_seconds={cluster.signal_seconds}; raise the limit or lower signal_seconds"
            )
    limit = cluster.resources_of("train").seconds
    if limit is None or seconds_per_step is None:
        return
    # A job saves at the end of its step after a stop signal, so one step is the shortest interval.
    interval = experiment.train.checkpoint_every_steps or 1
    needed = cluster.startup_seconds + interval * seconds_per_step + cluster.signal_seconds
    if limit < needed:
        yield (
            f"cluster.stages.train.time: {limit} s are too short for one checkpoint interval: {interval} steps of "
            f"{seconds_per_step:g} s, startup_seconds={cluster.startup_seconds:g} and "
            f"signal_seconds={cluster.signal_seconds} need {needed:.0f} s; raise the limit or lower "
            "train.checkpoint_every_steps"
        )
    if seconds_per_step > cluster.signal_seconds:
        yield (
            f"cluster.signal_seconds={cluster.signal_seconds}: less than the {seconds_per_step:g} s of one step: "
            "training cannot reach the end of its step and save; raise it"
        )


def as_data(graph: Sequence[Job]) -> list[dict[str, Any]]:
    """The jobs as plain data, for JSON."""
    return [
        {
            "job": job.name,
            "stage": job.stage,
            "iteration": job.iteration,
            "tasks": len(job.shard_batches),
            "nodes": job.nodes,
            "tasks_per_node": job.tasks_per_node,
            "gpus_per_node": job.gpus_per_node,
            "cpus_per_task": job.cpus_per_task,
            "time": job.resources.time,
            "partition": job.resources.partition,
            "environment": job.environment_name,
            "image": job.environment.image,
            "python": job.environment.python,
            "after": [{"job": item.job, "kind": item.kind} for item in job.after],
            "steps": [step.step_id for step in job.steps],
        }
        for job in graph
    ]
