"""Room for what is written: bytes and files on the run's disk and in the node's own folder, and shared memory."""

import os
from collections.abc import Iterator
from pathlib import Path

from nemo_sspo.artifacts.node_folder import node_folder
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.doctor.check import Check, judged, not_run
from nemo_sspo.doctor.host.folders import existing
from nemo_sspo.launch.preflight import HEADROOM_BYTES
from nemo_sspo.launch.totals import bytes_to_publish

LEAST_DISK_GIB = 5.0
"""The small world's runs take less than one."""
LEAST_NODE_GIB = 1.0
"""Compiled extensions, and what is handed from process to process."""
LEAST_SHARED_MEMORY_GIB = 1.0
"""NCCL, vLLM and data loaders pass tensors through /dev/shm; a container has 64 MiB of it by default."""
LEAST_FILES = 20_000
"""A run of three iterations and 100 shards a stage has about 10,000."""
SHARED_MEMORY = Path("/dev/shm")
_GIB = 2**30


def room_checks(experiment: Experiment) -> Iterator[Check]:
    """The disk of `runs_dir` holds what the run will publish, the node what a stage compiles."""
    needed = (bytes_to_publish(experiment) + HEADROOM_BYTES) / _GIB
    advice = "give runs_dir=... on another disk, or free some: `nemo-sspo clean RUN` takes what nothing reads any more"
    yield from _room("disk", existing(Path(experiment.runs_dir)), max(LEAST_DISK_GIB, needed), advice)
    advice = "set TMPDIR to another disk of this node: extensions are compiled there"
    yield from _room("temporary folder", existing(node_folder()), LEAST_NODE_GIB, advice)
    if not SHARED_MEMORY.is_dir():
        yield not_run("shared memory", "it cannot be seen here")
        return
    free = _free_gib(os.statvfs(SHARED_MEMORY))
    yield _enough("shared memory", free, LEAST_SHARED_MEMORY_GIB, "docker run --ipc=host, or --shm-size=16g")


def _room(name: str, folder: Path, least: float, advice: str) -> Iterator[Check]:
    found = os.statvfs(folder)
    yield _enough(name, _free_gib(found), least, advice)
    if found.f_files:  # some file systems do not count them
        files = found.f_favail
        advice = f"inodes are used up, though bytes may be free: {advice}"
        yield judged(f"files of the {name}", files >= LEAST_FILES, f"{files:,}", f">= {LEAST_FILES:,}", advice=advice)


def _free_gib(found: os.statvfs_result) -> float:
    return found.f_bavail * found.f_frsize / _GIB


def _enough(name: str, free: float, least: float, advice: str) -> Check:
    return judged(name, free >= least, f"{free:.4g} GiB", f">= {least:.3g} GiB free", advice=advice)
