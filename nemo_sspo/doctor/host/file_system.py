"""The disk of `runs_dir` does what publishing and locking rely on: tried in a folder of a moment."""

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from nemo_sspo.artifacts.durable import fsync
from nemo_sspo.doctor.check import Check, judged
from nemo_sspo.doctor.host.folders import existing, file_system

SLOW_SECONDS = 1.0
"""Of publishing one small artifact; a run publishes thousands."""
_OF_ONE_NODE = ("ext2", "ext3", "ext4", "xfs", "btrfs", "overlay", "tmpfs", "ramfs", "squashfs")
_OF_MEMORY = ("tmpfs", "ramfs")


def file_system_checks(runs_dir: Path, *, many_nodes: bool) -> Iterator[Check]:
    """Write, rename and flush as an artifact is published, hold a lock, link; and who sees it.

    Args:
        many_nodes: whether the nodes of a cluster will write there.
    """
    folder = existing(runs_dir)
    yield _kind(file_system(folder), many_nodes)
    try:
        with tempfile.TemporaryDirectory(prefix=".nemo-sspo-doctor-", dir=folder) as scratch:
            yield _publishing(Path(scratch))
            yield _locks(Path(scratch) / "lock")
            yield _links(Path(scratch))
    except OSError as error:
        yield Check("publishing", "failed", error.strerror, note=f"{folder}: give runs_dir=... that you may write to")


def _kind(kind: str, many_nodes: bool) -> Check:
    found = kind or "not known"
    if kind in _OF_MEMORY:
        advice = "it is memory, which a restart empties: give runs_dir=... on a disk"
        return Check("file system", "warning", found, note=advice)
    alone = many_nodes and kind in _OF_ONE_NODE
    advice = "other nodes see it only if this one exports it: give runs_dir=... on the shared file system"
    bound = "shared by all nodes" if many_nodes else None
    return judged("file system", not alone, found, bound, advice=advice, otherwise="warning")


def _publishing(scratch: Path) -> Check:
    """A draft is written, flushed and renamed as a whole; a small file takes the place of an older one."""
    started = time.monotonic()
    draft, final = scratch / "draft", scratch / "artifact"
    draft.mkdir()
    for content in ("first", "second"):
        temporary = draft / "manifest.tmp"
        temporary.write_text(content)
        fsync(temporary)
        os.replace(temporary, draft / "manifest.json")
    fsync(draft)
    os.rename(draft, final)
    fsync(scratch)
    seconds = time.monotonic() - started
    if (final / "manifest.json").read_text() != "second" or draft.exists():
        advice = "a renamed file is not the one that was written: give runs_dir=... on another file system"
        return Check("publishing", "failed", "stale", note=advice)
    advice = "every artifact waits for this: ask for the file system with less latency, or lower rollout.shards"
    found, bound = f"{seconds * 1e3:.3g} ms", f"<= {SLOW_SECONDS:g} s"
    return judged("publishing", seconds <= SLOW_SECONDS, found, bound, advice=advice, otherwise="warning")


def _locks(path: Path) -> Check:
    """A lock that one process holds is refused to another. That other nodes see it is not tried."""
    advice = "two runners could work on one run: have it mounted with locks (Lustre: -o flock; NFS: without nolock)"
    with path.open("w") as first, path.open("w") as second:
        try:
            fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return Check("locks", "failed", error.strerror, "flock", note=advice)
        try:
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return Check("locks", "passed", "flock")
    return Check("locks", "failed", "held twice", "flock", note=advice)


def _links(scratch: Path) -> Check:
    """A chosen checkpoint is linked into its artifact, and copied where that cannot be."""
    try:
        os.link(scratch / "artifact" / "manifest.json", scratch / "linked")
    except OSError as error:
        advice = "a chosen checkpoint is then copied, which takes its size once more until its training is cleaned up"
        return Check("hard links", "warning", error.strerror, note=advice)
    return Check("hard links", "passed", "made")
