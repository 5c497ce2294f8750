"""This machine's clock: against itself, against its source of time, and against the file system's."""

import ctypes
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from nemo_sspo.doctor.check import Check, at_most, judged
from nemo_sspo.doctor.host.folders import existing

MOST_SECONDS_APART = 5.0
"""Of a file's time from this machine's: the age of a lock and of a run is read from it."""
_NOT_SYNCHRONISED = 5
"""TIME_ERROR of adjtimex(2)."""
_DAY = 86400.0


def clock_checks(runs_dir: Path) -> Iterator[Check]:
    """The clock is right as far as a machine can tell by itself."""
    now, installed = time.time(), Path(__file__).stat().st_mtime
    advice = "set it (chronyc makestep): TLS, Slurm's munge and the ages of files go by it"
    if now < installed - _DAY:
        days = f"{(installed - now) / _DAY:.1f} days before nemo-sspo was installed"
        yield judged("clock", False, days, advice=advice)
    elif (state := kernel_clock_state()) is not None:
        right = state != _NOT_SYNCHRONISED
        found = "synchronised" if right else "not synchronised"
        advice = "start chrony or ntpd; in a container or a virtual machine its host may do it"
        yield judged("clock", right, found, advice=advice, otherwise="warning")
    folder = existing(runs_dir)
    if os.access(folder, os.W_OK):
        with tempfile.NamedTemporaryFile(prefix=".nemo-sspo-doctor-", dir=folder) as file:
            apart = abs(os.fstat(file.fileno()).st_mtime - time.time())
        note = "the file server's clock is another: have both follow one source of time"
        yield at_most("clock of the disk", round(apart, 2), MOST_SECONDS_APART, unit="s apart", note=note)


def kernel_clock_state() -> int | None:
    """What adjtimex(2) returns when it is only asked; None where it cannot be."""
    try:
        code = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512))  # all zero: modes = 0 changes nothing
    except (OSError, AttributeError):
        return None
    return code if code >= 0 else None
