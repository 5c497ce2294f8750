"""How a run on Slurm stands, step by step: from its manifests, its jobs' own records and squeue."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.artifacts.selection import EarlyStop, early_stop
from nemo_sspo.launch.due import due
from nemo_sspo.launch.job_record import Event, Submission, events, submissions
from nemo_sspo.launch.jobs import Job
from nemo_sspo.launch.lanes import Lane
from nemo_sspo.launch.local import read_progress
from nemo_sspo.launch.plan import Step
from nemo_sspo.launch.report_step import is_done
from nemo_sspo.launch.sbatch import Place
from nemo_sspo.launch.slurm import LiveJob

State = Literal["published", "running", "queued", "failed", "missing", "left out"]
_TAIL_BYTES = 8192


@dataclass(frozen=True)
class StepStatus:
    """One step of a run."""

    step: str
    state: State
    job: str
    """Slurm's id of its latest job; "" where it was never submitted."""
    restarts: int
    """Times its latest job was started again."""
    done: int | None
    """Rows or optimizer steps it has reported."""
    total: int | None
    unit: str
    per_second: float | None
    """Its rate since it began to report."""
    remaining: float | None
    """Seconds until it is done, at that rate."""
    detail: str
    """Why it waits, failed or is left out, or the last line of its log."""


def run_status(
    graph: Sequence[Job], place: Place, live: Sequence[LiveJob], final_state: Callable[[str], str]
) -> list[StepStatus]:
    """The state of every step, in the order of the plan.

    Args:
        final_state: what Slurm still knows of a job that is over, by its id; it is asked only about jobs that did not
            live to write down their end.
    """
    submitted: dict[tuple[str, int], Submission] = {}
    for item in submissions(place):
        submitted |= {(item.job, shard): item for shard in item.shards}
    alive = {(job.submission, job.task): job for job in live}
    still_due, stop = {job.name: job for job in due(graph, place)}, early_stop(RunLayout(place.run))
    rows: list[StepStatus] = []
    for name, job in ((job.name, still_due.get(job.name, job)) for job in graph):
        if stop is not None and name not in still_due:
            rows += [_left_out(step, stop) for step in job.steps]
            continue
        rows += [
            _status(step, lane, submitted.get((name, step.shard)), alive, place, final_state)
            for lane in job.lanes
            for step in lane
        ]
    return rows


def _left_out(step: Step, stop: EarlyStop) -> StepStatus:
    return StepStatus(step.step_id, "left out", "", 0, None, None, "", None, None, str(stop))


def _status(
    step: Step,
    lane: Lane,
    submission: Submission | None,
    alive: Mapping[tuple[str, int], LiveJob],
    place: Place,
    final_state: Callable[[str], str],
) -> StepStatus:
    """Of a step in its lane, whose task writes its events under the name of its first step."""
    layout, past = RunLayout(place.run), events(place, lane[0].step_id)
    job = alive.get((submission.id, lane[0].shard)) if submission else None
    begun = next((each for each in lane if not is_done(each)), None)
    state = _state(step, job, past, submission, waits=step != begun)
    progress = read_progress(layout.progress(step.step_id)) if state == "running" else None
    rate, remaining = _rate(progress or {})
    return StepStatus(
        step=step.step_id,
        state=state,
        job=job.id if job else submission.id if submission else "",
        restarts=past[-1].restart if past else 0,
        done=progress["done"] if progress else None,
        total=progress["total"] if progress else None,
        unit=progress["unit"] if progress else "",
        per_second=rate,
        remaining=remaining,
        detail=f"{_ending(past[-1], final_state)}: {last_log_line(layout, step.step_id)}"
        if state == "failed"
        else _detail(state, job, layout, step.step_id, begun),
    )


def _state(
    step: Step, job: LiveJob | None, past: Sequence[Event], submission: Submission | None, *, waits: bool
) -> State:
    """`waits` says that its task has another step to do first."""
    if is_done(step):
        return "published"
    if job is not None:
        return "queued" if waits or job.state == "PENDING" else "running"
    begun = [event for event in past if submission and event.job.partition("_")[0] == submission.id]
    return "failed" if begun and begun[-1].event != "finished" and not waits else "missing"


def _rate(progress: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """(units per second, seconds that remain) since the first report."""
    advanced = progress.get("done", 0) - progress.get("first", 0)
    seconds = progress.get("updated", 0.0) - progress.get("started", 0.0)
    if advanced <= 0 or seconds <= 0:
        return None, None
    rate = advanced / seconds
    left = (progress["total"] - progress["done"]) / rate - (time.time() - progress["updated"])
    return rate, max(0.0, left)


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


def last_log_line(layout: RunLayout, step_id: str) -> str:
    """The last line of a step's newest log."""
    logs = sorted(layout.log(step_id, "x").parent.glob(f"{step_id}.*.log"), key=lambda path: path.stat().st_mtime)
    lines = [line for path in reversed(logs) for line in reversed(list(_tail(path))) if line.strip()]
    return lines[0].strip() if lines else ""


def _tail(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        file.seek(0, 2)
        file.seek(max(0, file.tell() - _TAIL_BYTES))
        # A progress bar rewrites its line with carriage returns.
        yield from file.read().decode(errors="replace").replace("\r", "\n").splitlines()
