"""Slurm's limits that a run meets: arrays, submitted jobs, partitions' time and nodes, preemption, and srun's wait."""

import getpass
from collections.abc import Iterator, Mapping, Sequence

from nemo_sspo.config.cluster import Resources, SlurmCluster
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.doctor.check import Check, Verdict, judged, not_run
from nemo_sspo.errors import UserError
from nemo_sspo.launch.slurm import commands
from nemo_sspo.launch.slurm.jobs import Job, array_problems, jobs

_DEFAULT = ""
"""The partition of a job that names none."""


def slurm_checks(experiment: Experiment) -> Iterator[Check]:
    """The controller's limits against the jobs of a run on a Slurm cluster; without one, those that there are."""
    on_slurm = isinstance(experiment.cluster, SlurmCluster)
    try:
        settings, partitions = commands.configuration(), commands.partitions()
    except commands.NoSlurm as error:
        if on_slurm:
            yield not_run("Slurm", str(error))
        return
    except UserError as error:
        verdict: Verdict = "failed" if on_slurm else "warning"  # its commands may be there without a cluster
        yield Check("Slurm", verdict, "no answer", note=f"{error}; ask the site, or look at slurmctld's log")
        return
    yield Check("Slurm", "passed", settings.get("SLURM_VERSION", "version not known"))
    try:
        graph = jobs(experiment) if on_slurm else ()
    except UserError as error:
        yield Check("jobs", "failed", "cannot be planned", note=str(error))
        graph = ()
    yield _arrays(settings, graph)
    yield _submitted(settings, commands.limits_of_user(getpass.getuser()), graph)
    yield from _partitions(partitions, graph)
    yield _preemption(settings, partitions, graph)
    found = f"{settings.get('WaitTime', '?')}; jobs of a run have srun --wait=0"
    yield Check("WaitTime", "passed", found)


def _arrays(settings: Mapping[str, str], graph: Sequence[Job]) -> Check:
    size = settings.get("MaxArraySize", "")
    if not size.isdigit():
        return not_run("MaxArraySize", "scontrol show config does not say")
    wrong = list(array_problems(graph, int(size)))
    widest = max((len(job.shard_batches) for job in graph if job.is_array), default=None)
    bound = None if widest is None else f">= {widest}, the widest array"
    return judged("MaxArraySize", not wrong, size, bound, advice=wrong[0] if wrong else "")


def _submitted(settings: Mapping[str, str], limits: Sequence[Mapping[str, str]], graph: Sequence[Job]) -> Check:
    """The least of the user's limits and the controller's, which count every task of an array."""
    named = [
        (int(value), name)
        for limit in [*limits, {"MaxJobCount": settings.get("MaxJobCount", "")}]
        for name, value in limit.items()
        if "Job" in name and value.isdigit()
    ]
    count = sum(len(job.shard_batches) for job in graph)
    bound = f">= {count}, this run's jobs" if count else None
    if not named:
        return Check("submitted jobs", "passed", "no limit", bound)
    least, name = min(named)
    advice = "submit fewer iterations at once (--iterations 1), or raise cluster.shards_per_task"
    return judged("submitted jobs", least >= count, f"{least} ({name})", bound, advice=advice)


def _partitions(partitions: Mapping[str, Mapping[str, str]], graph: Sequence[Job]) -> Iterator[Check]:
    """Each partition that jobs go to: that it is there and up, and holds their time and nodes."""
    asked: dict[str, list[Job]] = {}
    for job in graph:
        for name in (job.resources.partition or _DEFAULT).split(","):
            asked.setdefault(name, []).append(job)
    default = next((name for name, found in partitions.items() if found.get("Default") == "YES"), None)
    for given, theirs in asked.items() if graph else ((name, []) for name in partitions):
        name = given or default or _DEFAULT
        title = f"partition {name or '(default)'}"
        if name not in partitions:
            advice = f"set cluster.partition to one of {', '.join(sorted(partitions))}"
            yield Check(title, "failed", "not there" if name else "none", note=advice)
        else:
            problem = next(_misfits(partitions[name], theirs), "")
            found = partitions[name]
            limits = f"{found.get('State')}, {found.get('TotalNodes')} nodes, at most {found.get('MaxTime')}"
            yield judged(title, not problem, limits, advice=problem)


def _misfits(partition: Mapping[str, str], graph: Sequence[Job]) -> Iterator[str]:
    if (state := partition.get("State", "UP")) != "UP":
        yield f"it is {state}, and jobs wait or are refused: ask the site, or give another cluster.partition"
    longest = seconds_of(partition.get("MaxTime", ""))
    nodes = min((int(n) for n in map(partition.get, ("MaxNodes", "TotalNodes")) if n and n.isdigit()), default=None)
    for job in graph:
        asked = job.resources.seconds
        if longest is not None and asked is not None and asked > longest:
            yield (
                f"{job.name} asks for {job.resources.time}, more than MaxTime: it would wait for ever or be refused; "
                f"lower cluster.stages.{job.stage}.time, training continues in the next job"
            )
        if nodes is not None and job.nodes > nodes:
            yield f"{job.name} takes {job.nodes} nodes, and it gives {nodes} at most: change parallel.*"


def seconds_of(time: str) -> int | None:
    """A time limit as scontrol prints it (``1-00:00:00``); None where there is none."""
    return Resources(time=time).seconds if time and time[0].isdigit() else None


def _preemption(
    settings: Mapping[str, str], partitions: Mapping[str, Mapping[str, str]], graph: Sequence[Job]
) -> Check:
    """Whether a job that is preempted is told early enough, by the signal on which every stage saves."""
    kind, parameters = settings.get("PreemptType", "preempt/none"), settings.get("PreemptParameters", "")
    if kind.endswith("none"):
        return Check("PreemptParameters", "passed", "no preemption here")
    names = {name for job in graph for name in (job.resources.partition or _DEFAULT).split(",") if name}
    mine = [found for name, found in partitions.items() if name in names or not names]
    modes = sorted({mode for found in mine for mode in [found.get("PreemptMode", "OFF")] if mode != "OFF"})
    if not modes:
        return Check("PreemptParameters", "passed", "jobs here are not preempted")
    grace = min((seconds_of(found.get("GraceTime", "0")) or 0 for found in mine), default=0)
    found = f"{', '.join(modes)}; {parameters}; GraceTime {grace} s"
    if "CANCEL" in modes:
        advice = "preempted jobs are cancelled, not queued again: `nemo-sspo resume RUN` submits what is missing"
        return Check("PreemptParameters", "warning", found, "REQUEUE", note=advice)
    advice = (
        "without it SIGTERM comes in SIGUSR1's place, and training saves only if its step ends within GraceTime: ask "
        "for PreemptParameters=send_user_signal, or lower train.checkpoint_every_steps"
    )
    told = "send_user_signal" in parameters
    return judged("PreemptParameters", told, found, "send_user_signal", advice=advice, otherwise="warning")
