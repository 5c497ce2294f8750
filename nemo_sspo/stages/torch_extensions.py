"""Where torch compiles extensions on this node, and locks in there that a killed process has left.

torch waits for the lock of an extension without a word and for as long as its file exists.
"""

import os
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from nemo_sspo.artifacts.node_folder import make_node_folder, node_folder
from nemo_sspo.errors import UserError

ABANDONED_SECONDS = 120.0
"""Age of a lock that no process in sight holds (its own may be in another container) beyond which it is removed."""
_POLL_SECONDS = 0.5


def node_local_folder() -> Path:
    """A folder of this node, this user and this torch: what one compiles no other loads."""
    try:
        torch = version("torch")
    except PackageNotFoundError:
        torch = "none"
    return node_folder() / "torch_extensions" / f"{sys.implementation.cache_tag}-torch-{torch}"


def prepare(folder: Path) -> None:
    """Make the folder, and tell of locks in it; those that nobody holds are removed.

    Raises:
        UserError: the folder is another user's, whose code would be loaded from it, or a lock cannot be removed.
    """
    if folder == node_local_folder():
        make_node_folder()
    for lock in folder.glob("*/lock"):
        _release(lock)


def _release(lock: Path) -> None:
    told = False
    while True:
        holder = _holder(lock)
        try:
            age = time.time() - lock.stat().st_mtime
        except FileNotFoundError:
            return
        if holder is not None:
            print(f"{lock}: process {holder} compiles this extension; torch waits for it", flush=True)
            return
        if age > ABANDONED_SECONDS:
            break
        if not told:
            seconds = ABANDONED_SECONDS - age
            print(f"{lock}: no process here holds this lock; removed in {seconds:.0f} s if it stays", flush=True)
            told = True
        time.sleep(_POLL_SECONDS)
    try:
        lock.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"{lock}: left by a process that is gone, and cannot be removed ({error.strerror}); torch would wait for "
            "ever: remove it, or set TORCH_EXTENSIONS_DIR to another directory"
        ) from None
    print(f"{lock}: removed, a process that is gone had left it", flush=True)


def _holder(lock: Path) -> int | None:
    """A process of this machine that has the lock's file open, as torch has while it compiles."""
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if os.readlink(descriptor) == str(lock.resolve()):
                return int(descriptor.parts[2])
        except OSError:
            continue
    return None
