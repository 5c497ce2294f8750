"""Where torch compiles extensions on this node, and stale locks that a killed process has left there.

torch waits for an extension's lock silently, for as long as the lock file exists.
"""

import os
import sys
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from nemo_sspo.artifacts.node_folder import make_node_folder, node_folder
from nemo_sspo.errors import UserError

ABANDONED_SECONDS = 120.0
"""Age of a lock that no process in sight holds (its own may be in another container) beyond which it is removed."""
_POLL_SECONDS = 0.5
UNUSED = "managed_alloc_runtime"
"""What megatron-core compiles when it is imported: unified memory for its inference engine, which nothing here uses."""


def node_local_folder() -> Path:
    """A folder for this node, user and torch version: compiled extensions are never shared between these."""
    try:
        torch = version("torch")
    except PackageNotFoundError:
        torch = "none"
    return node_folder() / "torch_extensions" / f"{sys.implementation.cache_tag}-torch-{torch}"


def skip_unused(folder: Path) -> None:
    """Have the import of megatron-core compile nothing: a file stands where its extension would be built.

    torch cannot write below it, not as root either, and megatron-core goes on without the extension. Compiling takes
    some 20 s of a processor on each fresh node, and fails with CUDA 13: 0.15.3 calls cudaMemAdvise as CUDA 12 has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        (folder / UNUSED).touch(exist_ok=False)


def prepare(folder: Path) -> None:
    """Make this node's folder and report locks in the extensions' folder; locks that no process holds are removed.

    Raises:
        UserError: this node's folder is another user's, whose code would be loaded, or a lock cannot be removed.
    """
    make_node_folder()
    if folder == node_local_folder():
        skip_unused(folder)
    for lock in folder.glob("*/lock"):
        _release(lock)


def _release(lock: Path) -> None:
    is_said = False
    while True:
        holder = holder_of(lock)
        try:
            age = time.time() - lock.stat().st_mtime
        except FileNotFoundError:
            return
        if holder is not None:
            print(f"{lock}: process {holder} compiles this extension; torch waits for it", flush=True)
            return
        if age > ABANDONED_SECONDS:
            break
        if not is_said:
            seconds = ABANDONED_SECONDS - age
            print(f"{lock}: no process here holds this lock; removed in {seconds:.0f} s if it stays", flush=True)
            is_said = True
        time.sleep(_POLL_SECONDS)
    try:
        lock.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"{lock}: left by a process that is gone, and cannot be removed ({error.strerror}); torch would wait for "
            "ever: remove it, or set TORCH_EXTENSIONS_DIR to another directory"
        ) from None
    print(f"{lock}: removed, a process that is gone had left it", flush=True)


def holder_of(lock: Path) -> int | None:
    """A process of this machine that has the lock's file open, as torch has while it compiles."""
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if os.readlink(descriptor) == str(lock.resolve()):
                return int(descriptor.parts[2])
        except OSError:
            continue
    return None
