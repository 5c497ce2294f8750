"""What survives a crash of the machine, and what a disk refuses."""

import errno
import os
from pathlib import Path

FULL_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT)
"""A full disk, and a quota that is used up."""


def fsync(path: Path) -> None:
    """Flush a file's content, or a folder's names, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
