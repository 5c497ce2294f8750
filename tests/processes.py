"""Other processes of this machine, from /proc. One may end between two looks: it is then as if it had not been seen."""

import os
import signal
from contextlib import suppress
from pathlib import Path


def is_running(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        # pid (name) state …: the name may hold spaces and parentheses
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def words_of(pid: int) -> list[str]:
    """Command line of a process; [] where it has ended."""
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return []
    return os.fsdecode(line).removesuffix("\0").split("\0") if line else []


def processes_naming(text: str) -> list[int]:
    """Other running processes with `text` in a word of their command line."""
    others = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return [
        pid for pid in others if pid != os.getpid() and any(text in word for word in words_of(pid)) and is_running(pid)
    ]


def kill_9(pid: int) -> None:
    """SIGKILL, unless it has ended by itself."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
