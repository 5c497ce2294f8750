"""Submit what is missing of a run to Slurm, as one chain of jobs over all iterations."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.artifacts.shard_ranges import shard_ranges
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.errors import UserError
from nemo_sspo.launch.run_directory import write_atomically
from nemo_sspo.launch.slurm.commands import NoSlurm, live_jobs, mark, name_in_queue, sbatch, scancel
from nemo_sspo.launch.slurm.job_record import Submission, append_submission
from nemo_sspo.launch.slurm.jobs import Job, jobs, slurm_cluster
from nemo_sspo.launch.slurm.remaining_jobs import remaining_jobs
from nemo_sspo.launch.slurm.report_step import is_done
from nemo_sspo.launch.slurm.sbatch import RunPaths, environment_text, render
from nemo_sspo.launch.stale import freshness_of
from nemo_sspo.stages.runner.freshness import Freshness

_NAMED = 5
_SUBMIT_LIMIT = "SubmitJob"
"""In the names of Slurm's limits of submitted jobs: AssocMaxSubmitJobLimit, QOSMaxSubmitJobPerUserLimit, ..."""


@dataclass(frozen=True)
class ArraySubmission:
    """The tasks of a job that miss a shard and wait for the same things: one call of sbatch."""

    job: Job
    tasks: tuple[int, ...]
    """Their numbers in the array; (0,) of what is none."""
    correlated: bool
    """Whether each task waits for its own counterpart in the jobs that it depends on task by task."""

    @property
    def shards(self) -> tuple[int, ...]:
        """What the tasks take."""
        return tuple(step.shard for task in self.tasks for step in self.job.shard_batches[task])


@dataclass(frozen=True)
class Iterations:
    """A part of a run, submitted by itself."""

    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.first}-{self.last}" if self.last > self.first else f"{self.first}"


def run_paths(experiment: Experiment) -> RunPaths:
    """Paths for the jobs of an experiment: this directory and the run's, absolute."""
    return RunPaths(experiment.run_dir.absolute(), Path.cwd())


def missing_parts(graph: Sequence[Job], freshness: Freshness) -> Iterator[ArraySubmission]:
    """What has to be submitted, in order; steps that are published and current are left out.

    A task of an array can only wait for a task that is submitted too. So an array's tasks are split: those whose
    counterparts are done, and those that wait for theirs.
    """
    missing: dict[str, frozenset[int]] = {}
    for job in graph:
        tasks = frozenset(
            task for task, batch in enumerate(job.shard_batches) if not all(is_done(step, freshness) for step in batch)
        )
        missing[job.name] = tasks
        pending = frozenset[int]().union(*(missing[item.job] for item in job.after if item.kind == "aftercorr"))
        for chosen, correlated in ((tasks - pending, False), (tasks & pending, True)):
            if chosen:
                yield ArraySubmission(job, tuple(sorted(chosen)), correlated)


def parts_to_submit(
    experiment: Experiment, graph: Sequence[Job], iterations: Iterations | None = None
) -> list[ArraySubmission]:
    """What is missing of a run, or of these iterations of it, in order.

    Raises:
        UserError: an iteration before them is not whole.
    """
    chosen = remaining_jobs(graph, run_paths(experiment), iterations.last if iterations else None)
    parts = list(missing_parts(chosen, freshness_of(experiment)))
    early = next((part.job for part in parts if iterations and 0 < part.job.iteration < iterations.first), None)
    if early is not None:
        raise UserError(
            f"--iterations {iterations}: {early.name} is missing, and jobs wait only for jobs that are submitted with "
            f"them; begin with {early.iteration}"
        )
    return parts


def jobs_to_slurm(parts: Sequence[ArraySubmission]) -> int:
    """As a limit of submitted jobs counts them: every task of an array."""
    return sum(len(part.tasks) for part in parts)


def write_scripts(experiment: Experiment, graph: Sequence[Job], place: RunPaths) -> list[Path]:
    """Write every job's script and both environments; return the scripts."""
    cluster = slurm_cluster(experiment)
    texts = {place.script(job): render(job, cluster, place, experiment.name) for job in graph}
    layout = RunLayout(place.run)
    for folder in (place.state / "attempts", place.state / "rendezvous", layout.log("any", "1").parent):
        folder.mkdir(parents=True, exist_ok=True)
    for name in ("train", "rollout"):
        write_atomically(place.environment_file(name), environment_text(getattr(cluster, name).variables))
    for path, text in texts.items():
        write_atomically(path, text)
    return list(texts)


def refuse_live_jobs(run: Path) -> None:
    """Raise a UserError that names the jobs of a run that Slurm has not finished."""
    ids = list(dict.fromkeys(job.submission for job in live_jobs(run)))
    if ids:
        more = f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else ""
        raise UserError(
            f"{run}: Slurm jobs {', '.join(ids[:_NAMED])}{more} of this run are queued or running; `nemo-sspo status "
            "<run>` shows them and `nemo-sspo cancel <run>` ends them"
        )


def refuse_beside_jobs(run: Path) -> None:
    """Raise a UserError when a run that this machine should drive may have live Slurm jobs."""
    record = RunPaths(run.absolute(), Path.cwd()).submissions
    if not record.exists():
        return
    try:
        refuse_live_jobs(run.absolute())
    except NoSlurm:
        raise UserError(
            f"{run} was submitted to Slurm, and there is no squeue here to tell whether its jobs are over; run this on "
            f"the cluster, or delete {record} when they are"
        ) from None


def submit(
    experiment: Experiment, *, begin: str | None = None, iterations: Iterations | None = None
) -> list[Submission]:
    """Submit what is missing. The caller holds the run's lock and has stored the experiment.

    Args:
        begin: earliest start, as sbatch --begin takes it.
        iterations: of these alone.

    Raises:
        UserError: jobs of the run are alive, or Slurm refused one; what was submitted before it has been cancelled.
    """
    place = run_paths(experiment)
    graph = jobs(experiment)
    refuse_live_jobs(place.run)
    parts = parts_to_submit(experiment, graph, iterations)
    write_scripts(experiment, remaining_jobs(graph, place), place)
    done: list[Submission] = []
    try:
        for part in parts:
            options = list(submit_options(part, place, done, begin))
            job_id = _sbatch(place, part.job, options, jobs_to_slurm(parts))
            done.append(Submission(part.job.name, job_id, part.shards, time.time()))
            append_submission(place, done[-1])
    except BaseException as error:
        _take_back(place.run, done, error)
        raise
    return done


def _sbatch(place: RunPaths, job: Job, options: Sequence[str], count: int) -> str:
    try:
        return sbatch(place.script(job), options)
    except NoSlurm:
        raise
    except UserError as error:
        advice = (
            f": these are {count} jobs, for Slurm counts every task of an array; submit fewer iterations at once "
            "(--iterations 1), raise cluster.shards_per_task, or run in one job (slurm/one_node.sbatch)"
        )
        raise UserError(f"{job.name}: {error}{advice if _SUBMIT_LIMIT in str(error) else ''}") from None


def _take_back(run: Path, done: Sequence[Submission], error: BaseException) -> None:
    """Cancel what was submitted, including a job whose sbatch call died before it returned the id."""
    ids = [item.id for item in done]
    try:
        ids = list(dict.fromkeys([*ids, *(job.submission for job in live_jobs(run))]))
        scancel(ids)
    except UserError as trouble:
        raise UserError(
            f"{error}; and {trouble}: jobs of {run} may be left (submitted: {', '.join(ids) or 'none that is known'}); "
            "`nemo-sspo cancel <run>` ends them"
        ) from error


def submit_options(
    part: ArraySubmission, place: RunPaths, done: Sequence[Submission], begin: str | None
) -> Iterator[str]:
    """Options of sbatch that depend on the moment: where, which tasks, after what."""
    yield f"--chdir={place.run}"
    yield f"--job-name={name_in_queue(place.run, part.job.name)}"
    yield f"--comment={part.job.resources.comment or mark(place.run)}"
    yield "--export=ALL"
    yield "--kill-on-invalid-dep=yes"
    if begin is not None:
        yield f"--begin={begin}"
    if part.job.is_array:
        at_once = part.job.resources.parallel_tasks
        yield f"--array={shard_ranges(part.tasks)}{f'%{at_once}' if at_once else ''}"
    waits = []
    for item in part.job.after:
        task_by_task = item.kind == "aftercorr"
        ids = [earlier.id for earlier in done if earlier.job == item.job]
        if ids and (part.correlated or not task_by_task):
            waits.append(":".join([item.kind, *ids]))
    if waits:
        yield f"--dependency={','.join(waits)}"
