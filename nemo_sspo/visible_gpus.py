"""The GPUs that a CUDA program started here would see, found without loading a driver library."""

import os
import re
from pathlib import Path

DEVICES = Path("/dev")
_ORDINAL = re.compile(r"\s*\+?(\d+)")


def visible_gpus() -> tuple[str, ...]:
    """Their names as CUDA_VISIBLE_DEVICES takes them: those it lists, else all that can be opened."""
    present = _present()
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not present:
        return ()
    if allowed is None:
        return tuple(map(str, range(present)))
    return _listed(allowed, None if _is_wsl() else present)


def _present() -> int:
    """GPUs that this process may open: Slurm's cgroups and containers leave out others, whose files may be there.

    CUDA counts from 0 over these. On WSL2 there is one file for all GPUs: 1.
    """
    files = [path for path in DEVICES.glob("nvidia*") if path.name.removeprefix("nvidia").isdigit()]
    return sum(map(_opens, files)) or int(_is_wsl())


def _is_wsl() -> bool:
    return (DEVICES / "dxg").exists()


def _opens(path: Path) -> bool:
    try:
        os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))  # without waiting for the GPU to wake up
    except OSError:
        return False
    return True


def _listed(allowed: str, present: int | None) -> tuple[str, ...]:
    """As CUDA reads the list: up to the first name that is none ("-1", Slurm's "NoDevFiles") or no GPU's number; a list
    that names one twice is empty. `present` None: their number is not known."""
    names: list[str] = []
    for word in allowed.split(","):
        if word.startswith(("GPU-", "MIG-")):
            name = word
        elif (ordinal := _ORDINAL.match(word)) and (present is None or int(ordinal[1]) < present):
            name = str(int(ordinal[1]))
        else:
            break
        if name in names:
            return ()
        names.append(name)
    return tuple(names)
