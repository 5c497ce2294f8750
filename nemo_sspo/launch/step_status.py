"""One line of `nemo-sspo status`, for local runs and Slurm runs alike."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.artifacts.progress import read_progress
from nemo_sspo.artifacts.selection import EarlyStop
from nemo_sspo.launch.log_lines import failing_line, telling_line
from nemo_sspo.launch.plan import Step

State = Literal["published", "stale", "running", "queued", "failed", "missing", "left out"]
_TAIL_BYTES = 65536


@dataclass(frozen=True)
class StepStatus:
    """One step of a run."""

    step: str
    state: State
    job: str = ""
    """Slurm's id of its latest job; "" where it was never submitted."""
    restarts: int = 0
    """Times its latest job was started again."""
    done: int | None = None
    """Rows or optimizer steps it has reported."""
    total: int | None = None
    unit: str = ""
    per_second: float | None = None
    """Its rate since it began to report."""
    remaining: float | None = None
    """Seconds until it is done, at that rate."""
    detail: str = ""
    """Why it waits, failed, is left out or out of date; of a running step what it says it does, or its log's last line
    that tells something."""


def left_out(step: Step, stop: EarlyStop) -> StepStatus:
    """A step after an early stop."""
    return StepStatus(step.step_id, "left out", detail=str(stop))


def stale(step: Step, reasons: Sequence[str]) -> StepStatus:
    """A published step that is not what today's settings and inputs would make."""
    return StepStatus(step.step_id, "stale", detail="; ".join(reasons))


def reported(layout: RunLayout, step: Step) -> dict[str, Any]:
    """What a running step says of its progress, as fields of `StepStatus`; empty before its first report."""
    if (progress := read_progress(layout.progress(step.step_id))) is None:
        return {}
    rate, remaining = _rate(progress)
    counted = {name: progress[name] for name in ("done", "total", "unit")}
    said = {"detail": progress["note"]} if progress.get("note") else {}
    return {**counted, **said, "per_second": rate, "remaining": remaining}


def last_log_line(layout: RunLayout, step_id: str, *, failed: bool = False) -> str:
    """The last line that tells something of a step's newest log that has any: of a failed step, its error."""
    for path in sorted(layout.logs(step_id), key=lambda path: path.stat().st_mtime, reverse=True):
        lines = _tail(path)
        if line := failing_line(lines) if failed else telling_line(lines):
            return line
    return ""


def _rate(progress: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """(units per second, seconds that remain) since the first report."""
    advanced = progress.get("done", 0) - progress.get("first", 0)
    seconds = progress.get("updated", 0.0) - progress.get("started", 0.0)
    if advanced <= 0 or seconds <= 0:
        return None, None
    rate = advanced / seconds
    left = (progress["total"] - progress["done"]) / rate - (time.time() - progress["updated"])
    return rate, max(0.0, left)


def _tail(path: Path) -> list[str]:
    with path.open("rb") as file:
        file.seek(0, 2)
        file.seek(max(0, file.tell() - _TAIL_BYTES))
        # A progress bar rewrites its line with carriage returns.
        return file.read().decode(errors="replace").replace("\r", "\n").splitlines()
