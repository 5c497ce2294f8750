"""The run's directory as one runner sees it: held by a lock, with the experiment it was started with."""

import errno
import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from pydantic import ValidationError

from nemo_sspo.artifacts.fingerprint import differ
from nemo_sspo.artifacts.layout import RunLayout, no_run
from nemo_sspo.artifacts.published import read_manifest
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.errors import UserError
from nemo_sspo.launch.stale import refuse_stale

_LOCK_SECONDS = 15.0
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


@contextmanager
def hold(layout: RunLayout) -> Iterator[int]:
    """Be the only runner of a run. Yields the lock's file descriptor: a process that inherits it holds the run too.

    The kernel releases the lock once every holder has ended, however it ended. Steps of a killed runner need a moment
    to end; this function waits for them.

    Raises:
        UserError: another runner works on it, or the directory cannot be made.
    """
    try:
        layout.root.mkdir(parents=True, exist_ok=True)
        lock = layout.lock.open("a+")
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise UserError(f"{layout.root}: cannot be used as a run directory ({error.strerror})") from None
    with lock:
        patience = time.monotonic() + _LOCK_SECONDS
        while not _try_lock(lock):
            lock.seek(0)
            holder = lock.read().strip()
            if _is_alive(holder) or time.monotonic() > patience:
                raise UserError(
                    f"{layout.root}: already being run by {holder or 'another process'}; wait for it to end, or give "
                    "this run another name=..."
                )
            time.sleep(0.1)
        lock.truncate(0)
        lock.write(_holder(os.getpid()))
        lock.flush()
        yield lock.fileno()


def held_since(layout: RunLayout) -> float | None:
    """When the run's current runner took the lock, in seconds since the epoch; None if there is none."""
    try:
        lock = layout.lock.open()
    except FileNotFoundError:
        return None
    with lock:
        if not _is_alive(lock.read().strip()):
            return None
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return os.fstat(lock.fileno()).st_mtime
        return None


def _try_lock(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        raise UserError(
            f"{lock.name}: this file system has no locks ({error.strerror}), so two runners could work on one run; "
            "give a runs_dir=... on another, or have it mounted with them (Lustre: -o flock)"
        ) from None
    return True


def _holder(pid: int) -> str:
    return f"process {pid} on {os.uname().nodename}"


def _is_alive(holder: str) -> bool:
    """Whether the runner that a lock names is still alive; assumed of one on another machine."""
    words = holder.split()
    if len(words) != 4 or not words[1].isdigit() or holder != _holder(int(words[1])):
        return bool(holder)
    try:
        os.kill(int(words[1]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def bind(experiment: Experiment, layout: RunLayout) -> list[str]:
    """Store the experiment beside its artifacts, or check it against the one that is there.

    A setting may change for as long as nothing is published that depends on it. Returns the accepted changes.

    Raises:
        UserError: published artifacts are not what these settings and today's inputs would make; they are named.
    """
    if not layout.experiment.exists():
        write_atomically(layout.experiment, experiment.model_dump_json(indent=2) + "\n")
        return []
    refuse_stale(experiment)
    stored = stored_experiment(layout)
    if stored == experiment:
        return []
    write_atomically(layout.experiment, experiment.model_dump_json(indent=2) + "\n")
    return differences(stored.model_dump(mode="json"), experiment.model_dump(mode="json")) if stored else []


def going_on(experiment: Experiment) -> Experiment:
    """The experiment as its run goes on: where that began with fewer iterations, the prompts of these stay theirs."""
    prompts = read_manifest(RunLayout(experiment.run_dir).artifact("prepare_prompts"))
    began_with = None if prompts is None else prompts.config.get("iterations")
    if not isinstance(began_with, int) or began_with >= experiment.iterations:
        return experiment
    return experiment.model_copy(update={"further": experiment.further.model_copy(update={"after": began_with})})


def stored_experiment(layout: RunLayout) -> Experiment | None:
    """The experiment of a run; None when it was written by another version of the configuration."""
    try:
        return Experiment.model_validate_json(layout.experiment.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise no_run(layout) from None
    except ValidationError:
        return None


def write_atomically(path: Path, text: str) -> None:
    """Replace a small file as a whole, durably."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Lines ``key: old -> new`` of two trees of settings."""
    lines = []
    for key in dict.fromkeys([*old, *new]):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            lines += differences(before, after, f"{prefix}{key}.")
        elif differ(before, after):
            lines.append(f"{prefix}{key}: {before!r} -> {after!r}")
    return lines
