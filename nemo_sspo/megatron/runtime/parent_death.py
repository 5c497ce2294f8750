"""A process that does not outlive its parent. Imports nothing heavy: small helpers run it first."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
    """Have the kernel kill this process when the thread of `parent` that started it ends, however it ends (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before prctl could see it
            os._exit(1)


def serve_to_the_end_of(rank: int) -> None:
    """The same for a process through which `rank` saves a state after a stop signal: signals to the rank's whole
    process group (torchrun, Slurm) do not end this one."""
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    die_with(rank)
