"""The machine as a run finds it: driver, memory, shared memory, disk, and the variables that NCCL reads."""

import os
import platform
import re
import resource
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nemo_sspo.doctor.host.folders import existing
from nemo_sspo.doctor.host.room import SHARED_MEMORY
from nemo_sspo.doctor.nvidia_smi import NoAnswer, ask
from nemo_sspo.visible_gpus import visible_gpus

_GIB = 2**30
_PREFIXES = ("NCCL_", "TORCH_NCCL_", "CUDA_", "NVTE_", "NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE")
# Values that may name a host, an address or a user's path, or be a secret.
_PRIVATE = re.compile(r"COMM_ID|HOST|ADDR|SOCKET|FILE|PATH|DIR|HOME|TOKEN|KEY|SECRET|PASS")


def look_at_machine(runs_dir: Path) -> dict[str, Any]:
    """Facts of this machine. They name no host, no user and no path, and hold no secret."""
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpus": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GIB, 1),
        "shared_memory_gib": _free_gib(SHARED_MEMORY),
        "disk_free_gib": _free_gib(existing(runs_dir)),
        "locked_memory": _limit(resource.RLIMIT_MEMLOCK),
        "open_files": _limit(resource.RLIMIT_NOFILE),
        "gpus": len(visible_gpus()),
        "driver": _driver_version(),
        "nvcc": shutil.which("nvcc") is not None,
        "variables": variables(os.environ),
    }


def variables(environment: Mapping[str, str]) -> dict[str, str]:
    """What steers NCCL, CUDA and Transformer Engine; of private values only that they are set."""
    chosen = {name: value for name, value in sorted(environment.items()) if name.startswith(_PREFIXES)}
    return {name: "(set)" if _PRIVATE.search(name) else value for name, value in chosen.items()}


def _free_gib(path: Path) -> float | None:
    return round(shutil.disk_usage(path).free / _GIB, 2) if path.is_dir() else None


def _limit(which: int) -> int | str:
    soft, _ = resource.getrlimit(which)
    return "unlimited" if soft == resource.RLIM_INFINITY else soft


def _driver_version() -> str | None:
    """From nvidia-smi; None without it or without a GPU."""
    try:
        lines = ask("--query-gpu=driver_version", "--format=csv,noheader")
    except NoAnswer:
        return None
    return lines[0].strip() or None if lines else None
