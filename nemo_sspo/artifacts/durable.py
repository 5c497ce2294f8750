"""What survives a crash of the machine, and what a disk refuses."""

import errno
import os
from pathlib import Path

FULL_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT)
"""A full disk, and a quota that is used up."""


def full_disk_line(error: BaseException) -> str | None:
    """What tells of a full disk: an error's own words, those of one that it was raised after, or, of another process's
    traceback, the line. None where nothing does."""
    if getattr(error, "errno", None) in FULL_DISK_ERRORS:
        return str(error)
    for line in str(error).splitlines():
        if any(os.strerror(number) in line for number in FULL_DISK_ERRORS):
            return line.strip()
    before = error.__cause__ or error.__context__
    return None if before is None else full_disk_line(before)


def fsync(path: Path) -> None:
    """Flush a file's content, or a folder's names, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
