"""The GPUs as their driver sees them: free, whole, without memory errors, and linked to each other."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nemo_sspo.doctor.check import Check, judged, not_run
from nemo_sspo.doctor.nvidia_smi import NoAnswer, ask

IDLE_MIB = 1024.0
"""Memory that a GPU without a process has in use."""
_FIELDS = ("index", "memory.used", "mig.mode.current", "compute_mode", "ecc.errors.uncorrected.volatile.total")
_LINK = re.compile(r"X|NV\d+|SYS|NODE|PHB|PXB|PIX")
_TERMINAL = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Gpu:
    """One line of nvidia-smi; what a GPU does not have is None."""

    index: str
    used_mib: float
    mig: bool
    compute_mode: str
    memory_errors: int


def gpu_checks() -> Iterator[Check]:
    """Nothing without nvidia-smi."""
    try:
        lines = ask(f"--query-gpu={','.join(_FIELDS)}", "--format=csv,noheader,nounits")
        links = ask("topo", "-m") if lines and len(lines) > 1 else None
    except NoAnswer as error:
        advice = "dmesg names the GPU (Xid) or a driver that its kernel module does not match; restart the node"
        yield Check("nvidia-smi", "failed", str(error), note=advice)
        return
    if lines is None:
        return
    gpus = [gpu for line in lines if (gpu := _gpu(line)) is not None]
    if not gpus:
        yield not_run("GPU state", "nvidia-smi lists no GPU")
        return
    yield from _state(gpus)
    if links is not None:
        yield from _links(links)


def _gpu(line: str) -> Gpu | None:
    words = [word.strip() for word in line.split(",")]
    if len(words) != len(_FIELDS):
        return None
    index, used, mig, mode, errors = words
    return Gpu(index, _number(used), mig == "Enabled", mode, int(_number(errors)))


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:  # [N/A], [Not Supported]
        return 0.0


def _state(gpus: Sequence[Gpu]) -> Iterator[Check]:
    busy = [gpu for gpu in gpus if gpu.used_mib > IDLE_MIB]
    found = ", ".join(f"GPU {gpu.index}: {gpu.used_mib / 1024:.1f} GiB used" for gpu in busy) or "idle"
    advice = (
        "another process holds it (nvidia-smi names it): wait, end it, or leave the GPU out by CUDA_VISIBLE_DEVICES"
    )
    yield judged("GPU memory", not busy, found, advice=advice, otherwise="warning")
    broken = [gpu.index for gpu in gpus if gpu.memory_errors]
    found = f"uncorrected errors on GPU {', '.join(broken)}" if broken else "no uncorrected error"
    yield judged("GPU memory errors", not broken, found, advice="drain the node and have the GPU reset or replaced")
    split = [gpu.index for gpu in gpus if gpu.mig]
    advice = "a part has too little memory and no NVLink: have MIG switched off (nvidia-smi -mig 0, as root)"
    yield judged(
        "MIG", not split, f"on: GPU {', '.join(split)}" if split else "off", advice=advice, otherwise="warning"
    )
    closed = [gpu for gpu in gpus if gpu.compute_mode not in ("Default", "[N/A]")]
    found = ", ".join(f"GPU {gpu.index}: {gpu.compute_mode}" for gpu in closed) or "Default"
    advice = "vLLM's engine and its parent may both open a GPU: nvidia-smi -c 0, as root"
    yield judged("compute mode", not closed, found, "Default", advice=advice, otherwise="warning")


def _links(lines: Sequence[str]) -> Iterator[Check]:
    """Of the matrix of `nvidia-smi topo -m`: GPUs by pairs."""
    words = [_TERMINAL.sub("", line).split() for line in lines]
    rows = [row for row in words if len(row) > 1 and re.fullmatch(r"GPU\d+", row[0]) and _LINK.fullmatch(row[1])]
    kinds = {word for row in rows for word in row[1 : len(rows) + 1] if _LINK.fullmatch(word)} - {"X"}
    if not kinds:
        yield not_run("GPU links", "nvidia-smi topo -m shows none")
        return
    slow = sorted(kind for kind in kinds if not kind.startswith("NV"))
    found = ", ".join(sorted(kinds))
    advice = (
        "some pairs talk over PCIe, which tensor parallelism waits for: lower parallel.tensor, raise parallel.pipeline"
    )
    yield judged("GPU links", not slow, found, "NVLink", advice=advice, otherwise="warning")
