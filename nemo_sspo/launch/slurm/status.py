"""The state of each step of a run on Slurm: from its manifests, its jobs' own records and squeue."""

from collections.abc import Callable, Sequence

from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.artifacts.selection import early_stop
from nemo_sspo.launch.plan import Step
from nemo_sspo.launch.shard_batches import ShardBatch
from nemo_sspo.launch.slurm.commands import LiveJob
from nemo_sspo.launch.slurm.job_record import Event, Submission, events, submissions
from nemo_sspo.launch.slurm.jobs import Job
from nemo_sspo.launch.slurm.remaining_jobs import remaining_jobs
from nemo_sspo.launch.slurm.report_step import is_done
from nemo_sspo.launch.slurm.sbatch import RunPaths
from nemo_sspo.launch.step_status import State, StepStatus, last_log_line, left_out, reported, stale
from nemo_sspo.stages.runner.freshness import Freshness

_WRITTEN_ENDS = ("gave_up", "crashed", "stopped")
"""Events after which a job does not continue."""


def slurm_status(
    graph: Sequence[Job],
    place: RunPaths,
    live: Sequence[LiveJob] | None,
    final_state: Callable[[str], str],
    freshness: Freshness,
) -> list[StepStatus]:
    """The state of every step, in the order of the plan.

    Args:
        live: its waiting and running jobs; None if Slurm cannot be reached: then only a job that recorded its own end
            counts as failed.
        final_state: Slurm's record of an ended job, by its id; called only for jobs that died before they recorded
            their end.
    """
    submitted: dict[tuple[str, int], Submission] = {}
    for item in submissions(place):
        submitted |= {(item.job, shard): item for shard in item.shards}
    alive = {(job.submission, job.task): job for job in live or ()}
    remaining, stop = {job.name: job for job in remaining_jobs(graph, place)}, early_stop(RunLayout(place.run))
    rows: list[StepStatus] = []
    for name, job in ((job.name, remaining.get(job.name, job)) for job in graph):
        if stop is not None and name not in remaining:
            rows += [left_out(step, stop) for step in job.steps]
            continue
        for task, batch in enumerate(job.shard_batches):
            for step in batch:
                submission = submitted.get((name, step.shard))
                job_alive = alive.get((submission.id, task)) if submission else None
                asked = live is not None
                rows.append(_status(step, batch, submission, job_alive, place, final_state, freshness, asked))
    return rows


def _status(
    step: Step,
    batch: ShardBatch,
    submission: Submission | None,
    job: LiveJob | None,
    place: RunPaths,
    final_state: Callable[[str], str],
    freshness: Freshness,
    asked: bool,
) -> StepStatus:
    """Of a step in its shard batch, whose task writes its events under the name of its first step."""
    layout, past = RunLayout(place.run), events(place, batch[0].step_id)
    if reasons := freshness.reasons(step.output):
        return stale(step, reasons)
    begun = next((each for each in batch if not is_done(each, freshness)), None)
    state = "published" if is_done(step, freshness) else _state(job, past, submission, waits=step != begun, asked=asked)
    return StepStatus(
        step=step.step_id,
        state=state,
        job=job.id if job else submission.id if submission else "",
        restarts=past[-1].restart if past else 0,
        **{
            "detail": f"{_ending(past[-1], final_state)}: {last_log_line(layout, step.step_id, failed=True)}"
            if state == "failed"
            else _detail(state, job, layout, step.step_id, begun),
            **(reported(layout, step) if state == "running" else {}),
        },
    )


def _state(
    job: LiveJob | None, past: Sequence[Event], submission: Submission | None, *, waits: bool, asked: bool
) -> State:
    """Of a step that is not done; `waits`: its task has another step to do first; `asked`: Slurm could list the
    live jobs."""
    if job is not None:
        return "queued" if waits or job.state == "PENDING" else "running"
    begun = [event for event in past if submission and event.job.partition("_")[0] == submission.id]
    ended = bool(begun) and begun[-1].event != "finished" and (asked or begun[-1].event in _WRITTEN_ENDS)
    return "failed" if ended and not waits else "missing"


def _detail(state: State, job: LiveJob | None, layout: RunLayout, step_id: str, begun: Step | None) -> str:
    match state:
        case "queued" if job is not None and job.state != "PENDING" and begun is not None:
            return f"after {begun.step_id} in the same task"
        case "queued" if job is not None:
            return job.reason if job.reason != "None" else ""
        case "running":
            return last_log_line(layout, step_id)
        case _:
            return ""


def _ending(event: Event, final_state: Callable[[str], str]) -> str:
    match event.event:
        case "gave_up" if event.code == 2:
            return "wrong input"
        case "gave_up" | "crashed":
            return f"failed with exit code {event.code}"
        case "stopped":
            return "cancelled"
        case _:
            return (
                f"ended by Slurm ({final_state(event.job) or 'cancelled, over its time limit, or its node was lost'})"
            )
