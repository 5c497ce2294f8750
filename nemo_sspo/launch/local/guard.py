"""Run a command so that none of its processes outlives the caller: ``python -m nemo_sspo.launch.local.guard``.

A stage starts ranks, engine processes and data loaders, some in sessions of their own, which no process group
reaches. The guard adopts orphans (PR_SET_CHILD_SUBREAPER), gets a signal from the kernel when its parent dies
(PR_SET_PDEATHSIG), and exits only when no descendant is left. Linux; elsewhere it only passes signals on.
Imports nothing but the standard library: one guard starts per step.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType

GRACE_SECONDS = 10.0
"""How long a command may take to end after SIGTERM."""
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_KILL_ROUNDS = 50
_POLL_SECONDS = 0.2


class _Stop(Exception):
    """SIGTERM came: from the runner, or from the kernel because the runner died."""


def guarded(command: list[str], save_seconds: float = 0.0) -> list[str]:
    """The command line that runs `command` under a guard of this process.

    Args:
        save_seconds: how long processes below the guard that handle SIGUSR1 may take to save their state and end, once
            the guard gets a stop signal. 0: the command gets SIGTERM at once.
    """
    return [sys.executable, "-m", "nemo_sspo.launch.local.guard", str(os.getpid()), str(save_seconds), *command]


def main(arguments: list[str]) -> int:
    """Run ``<parent pid> <save seconds> <command...>``; return the command's exit code, 128 + n when signal n ended
    it."""
    parent, save_seconds, command = int(arguments[0]), float(arguments[1]), arguments[2:]
    signal.signal(signal.SIGTERM, _stop)
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before prctl could see it
        return 1
    process: subprocess.Popen[bytes] | None = None
    try:
        process = subprocess.Popen(command)
        code = process.wait()
    except OSError as error:
        print(f"error: cannot start {command[0]} ({error.strerror})", file=sys.stderr)
        return 2
    except _Stop:
        code = _end(process, parent, save_seconds)
    finally:
        _kill_descendants()
    return code if code >= 0 else 128 - code


def descendants(root: int) -> list[int]:
    """Processes below `root`, from /proc; zombies are left out."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # pid (name) state ppid ...: the name may hold spaces and parentheses
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
        except (OSError, ValueError):
            continue
        if state != "Z":
            children.setdefault(int(parent), []).append(int(entry.name))
    found, frontier = [], [root]
    while frontier:
        below = children.get(frontier.pop(), [])
        found += below
        frontier += below
    return found


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise _Stop


def _end(process: subprocess.Popen[bytes] | None, parent: int, save_seconds: float) -> int:
    """Ask the command to save, then SIGTERM, then SIGKILL. A killed runner may restart at once: no grace then."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if process is None:
        return 128 + signal.SIGTERM
    # Not through the command: torchrun would kill its ranks 30 s later (torch < 2.12 has no working setting for it).
    if save_seconds and _tell_to_save() and (code := _wait(process, parent, save_seconds)) is not None:
        return code
    process.terminate()
    if (code := _wait(process, parent, GRACE_SECONDS)) is not None:
        return code
    process.kill()
    return process.wait()


def _wait(process: subprocess.Popen[bytes], parent: int, seconds: float) -> int | None:
    """The command's exit code; None when the time is over or the runner has died."""
    deadline = time.monotonic() + seconds
    while os.getppid() == parent and (left := deadline - time.monotonic()) > 0:
        try:
            return process.wait(min(left, _POLL_SECONDS))
        except subprocess.TimeoutExpired:
            continue
    return process.poll()


def _tell_to_save() -> bool:
    """SIGUSR1 to every process below that has a handler for it; whether there is one."""
    listening = [pid for pid in descendants(os.getpid()) if _catches(pid, signal.SIGUSR1)]
    for pid in listening:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGUSR1)
    return bool(listening)


def _catches(pid: int, number: signal.Signals) -> bool:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    mask = next((line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:")), "0")
    return bool(int(mask, 16) >> (number - 1) & 1)


def _kill_descendants() -> None:
    """Kill until none is left: a process may have started another between the look and the kill."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if sys.platform != "linux":
        return
    for _ in range(_KILL_ROUNDS):
        alive = descendants(os.getpid())
        if not alive:
            return
        for pid in alive:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.02)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
