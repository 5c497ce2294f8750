"""Slurm's commands, called with argument lists: no shell parses any of our values."""

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nemo_sspo.errors import UserError

_SECONDS = 60.0
_SEPARATOR = "|"
_FIELDS = ("%i", "%F", "%K", "%T", "%r", "%k", "%j")
"""Of squeue: id, array's id, array index, state, reason, and the free texts: comment and name."""
# Inside another job these variables would become options of our commands; SLURM_CONF names the cluster's configuration.
_OUTER = re.compile(r"(SLURM|SBATCH|SRUN|SQUEUE|SCANCEL)_(?!CONF$)")


class NoSlurm(UserError):
    """This machine has no Slurm commands."""


@dataclass(frozen=True)
class LiveJob:
    """One job, or one task of an array, that Slurm still has to run or is running."""

    id: str
    """As scancel and scontrol take it: ``12`` or ``12_3``."""
    submission: str
    """The id that sbatch returned for it."""
    task: int
    state: str
    """PENDING, RUNNING, COMPLETING, ..."""
    reason: str


def mark(run: Path) -> str:
    """The comment that marks every job of a run. A hash: a path may hold what a comment cannot."""
    return f"nemo-sspo:{_hash(run)[:32]}"


def name_in_queue(run: Path, job: str) -> str:
    """The name of a run's job for Slurm. It identifies the run too, because some sites overwrite job comments."""
    return f"{run.name}.{job}{_name_end(run)}"


def sbatch(script: Path, options: Sequence[str]) -> str:
    """Submit a script; the job's id.

    Raises:
        UserError: sbatch refused it, or is not there.
    """
    answer = _call("sbatch", "--parsable", *options, str(script)).strip()
    job_id = answer.splitlines()[-1].partition(";")[0] if answer else ""
    if not job_id.isdigit():
        raise UserError(f"sbatch {script.name}: answered {answer!r} instead of a job id")
    return job_id


def live_jobs(run: Path) -> list[LiveJob]:
    """Every job of a run that is not over yet, whoever submitted it: known by its comment, or else by its name."""
    comment, name_end = mark(run), _name_end(run)
    text = _call("squeue", "--noheader", "--array", f"--format={_SEPARATOR.join(_FIELDS)}")
    found = []
    for line in text.splitlines():
        job_id, submission, task, state, reason, *texts = line.strip().split(_SEPARATOR) + [""] * len(_FIELDS)
        if comment in texts or any(text.endswith(name_end) for text in texts):
            found.append(LiveJob(job_id, submission, int(task) if task.isdigit() else 0, state, reason))
    return sorted(found, key=lambda job: (int(job.submission), job.task))


def _name_end(run: Path) -> str:
    return f".{_hash(run)[:12]}"


def _hash(run: Path) -> str:
    return hashlib.sha256(os.fsencode(run.resolve())).hexdigest()


def final_state(job_id: str) -> str:
    """How a job ended (``timeout``, ``out_of_memory``, ``cancelled``, ...); "" where Slurm has forgotten it.

    The controller forgets a job minutes after its end; accounting, where a site has it, does not.
    """
    try:
        known = re.search(r"\bJobState=(\w+)", _call("scontrol", "show", "job", "--oneliner", job_id))
        if known:
            return known[1].lower()
    except UserError:
        pass
    if shutil.which("sacct") is None:
        return ""
    try:
        answer = _call("sacct", "--noheader", "--parsable2", "--allocations", "--format=State", f"--jobs={job_id}")
    except UserError:  # accounting is switched off
        return ""
    return answer.split()[0].lower() if answer.split() else ""


def configuration() -> dict[str, str]:
    """The controller's settings by their names, as `scontrol show config` prints them.

    Raises:
        UserError: it does not answer, or is not there.
    """
    lines = (line.partition("=") for line in _call("scontrol", "show", "config").splitlines())
    return {name.strip(): value.strip() for name, equals, value in lines if equals}


def max_array_size() -> int | None:
    """Tasks that an array may have, numbered from 0; None where Slurm does not say."""
    try:
        found = configuration().get("MaxArraySize", "")
    except UserError:
        return None
    return int(found) if found.isdigit() else None


def partitions() -> dict[str, dict[str, str]]:
    """Every partition's settings, by its name.

    Raises:
        UserError: the controller does not answer, or is not there.
    """
    found = (
        dict(word.partition("=")[::2] for word in line.split() if "=" in word)
        for line in _call("scontrol", "show", "partition", "--oneliner").splitlines()
    )
    return {settings["PartitionName"]: settings for settings in found if "PartitionName" in settings}


def limits_of_user(user: str) -> list[dict[str, str]]:
    """Limits of a user's associations and of the site's QOS; none where a site has no accounting."""
    asked = (
        ("assoc", ("Account", "Partition", "MaxSubmitJobs", "GrpSubmitJobs"), (f"user={user}",)),
        ("qos", ("Name", "MaxSubmitJobsPerUser", "GrpSubmitJobs"), ()),
    )
    found = []
    for what, fields, where in asked:
        words = ("sacctmgr", "--noheader", "--parsable2", "show", what, *where, f"format={','.join(fields)}")
        try:
            lines = _call(*words).splitlines()
        except UserError:
            return []
        found += [dict(zip(fields, line.split("|"), strict=False)) for line in lines]
    return found


def scancel(ids: Sequence[str]) -> None:
    """Cancel jobs; those that are over already are no error."""
    if ids:
        _call("scancel", "--quiet", *ids)


def _call(*command: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not _OUTER.match(name)}
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            env=environment,
        )
    except FileNotFoundError:
        raise NoSlurm(f"{command[0]}: no such command; run this where Slurm's commands are (a login node)") from None
    except subprocess.TimeoutExpired:
        raise UserError(f"{command[0]}: no answer within {_SECONDS:g} s; is Slurm's controller up?") from None
    if done.returncode:
        reason = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise UserError(f"{reason}" if reason.startswith(command[0]) else f"{command[0]}: {reason}")
    return done.stdout
