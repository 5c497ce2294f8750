"""What survives a crash of the machine, and what a disk refuses."""

import errno
import os
from pathlib import Path

FULL_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT)
"""A full disk, and a quota that is used up."""


def is_of_full_disk(error: BaseException) -> bool:
    """Whether an error is of a full disk, was raised while one was handled, or tells of one in another process."""
    if getattr(error, "errno", None) in FULL_DISK_ERRORS:
        return True
    if any(os.strerror(number) in str(error) for number in FULL_DISK_ERRORS):
        return True
    before = error.__cause__ or error.__context__
    return before is not None and is_of_full_disk(before)


def fsync(path: Path) -> None:
    """Flush a file's content, or a folder's names, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
