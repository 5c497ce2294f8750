"""What is written down about a run's jobs: which were submitted, and what happened to each attempt at a step.

Both are JSON lines that are only ever appended to, keyed by the run and its steps; job ids are values in them. Slurm
forgets a job minutes after its end, and accounting is not everywhere: this record is enough to know how a step ended.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nemo_sspo.launch.slurm.sbatch import RunPaths


@dataclass(frozen=True)
class Submission:
    """One call of sbatch."""

    job: str
    """Name of the job: ``iter_1.rollout``."""
    id: str
    """The id that Slurm gave it."""
    shards: tuple[int, ...]
    """What its tasks take; (0,) for what is no array."""
    at: float
    """Seconds since the epoch."""


@dataclass(frozen=True)
class Event:
    """A line that a job's script wrote."""

    event: str
    """start, finished, interrupted, crashed, stopped or gave_up."""
    job: str
    restart: int
    code: int
    at: int


def append_submission(place: RunPaths, submission: Submission) -> None:
    """Record it durably: a submission must survive the death of the submitter."""
    with place.submissions.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(submission)) + "\n")
        file.flush()
        os.fsync(file.fileno())


def submissions(place: RunPaths) -> list[Submission]:
    """Every submission of the run, oldest first."""
    return [Submission(**line | {"shards": tuple(line["shards"])}) for line in _lines(place.submissions)]


def events(place: RunPaths, step_id: str) -> list[Event]:
    """What happened to a step so far, oldest first."""
    return [Event(**line) for line in _lines(place.attempts(step_id))]


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Whole lines only: the last one may be in the middle of being written."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    for line in text.splitlines(keepends=True):
        if line.endswith("\n"):
            try:
                yield json.loads(line)
            except ValueError:  # torn by a node that died
                continue
