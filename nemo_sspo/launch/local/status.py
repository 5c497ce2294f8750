"""The state of each step of a run on this machine: from its manifests, its steps' own reports and its lock."""

from pathlib import Path

from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.artifacts.selection import early_stop
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.launch.failure import read_failure
from nemo_sspo.launch.plan import Step, plan
from nemo_sspo.launch.run_directory import held_since
from nemo_sspo.launch.step_status import StepStatus, last_log_line, left_out, reported, stale
from nemo_sspo.stages.runner.freshness import Freshness


def local_status(experiment: Experiment) -> list[StepStatus]:
    """The state of every step, in the order of the plan."""
    layout = RunLayout(experiment.run_dir)
    stop, since, freshness = early_stop(layout), held_since(layout), Freshness(experiment, layout)
    return [
        left_out(step, stop)
        if stop is not None and stop.leaves_out(step.iteration)
        else _status(layout, step, since, freshness)
        for step in plan(experiment)
    ]


def _status(layout: RunLayout, step: Step, since: float | None, freshness: Freshness) -> StepStatus:
    """`since` is when the run's runner began; None where it has none."""
    match freshness.standing(step.output):
        case "current":
            return StepStatus(step.step_id, "published")
        case "stale":
            return stale(step, freshness.reasons(step.output))
    if (reason := read_failure(layout, step.step_id, since or 0.0)) is not None:
        return StepStatus(step.step_id, "failed", detail=reason)
    last = last_log_line(layout, step.step_id)
    if since is None:
        end = last_log_line(layout, step.step_id, failed=True)
        return StepStatus(step.step_id, "missing", detail=f"ended before it was done: {end}" if end else "")
    # What the steps of an earlier runner have left is older.
    if _modified(layout.progress(step.step_id)) >= since:
        return StepStatus(step.step_id, "running", **{"detail": last, **reported(layout, step)})
    if any(_modified(log) >= since for log in layout.logs(step.step_id)):
        return StepStatus(step.step_id, "running", detail=last)
    return StepStatus(step.step_id, "queued")


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
