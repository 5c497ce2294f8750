"""Processor time and peak resident memory of a piece of code, as the kernel accounts for them."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple, TypeVar

Result = TypeVar("Result")


class Usage(NamedTuple):
    """What a call took."""

    cpu_seconds: float
    seconds: float
    peak_mib: float
    """Growth of the peak resident memory over what was resident before."""


def measured(run: Callable[[], Result]) -> tuple[Usage, Result]:
    """Run, and say what it took. Memory that an earlier call freed but the process kept is not counted again."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before, cpu, clock = _resident("VmRSS"), time.process_time(), time.perf_counter()
    result = run()
    usage = Usage(time.process_time() - cpu, time.perf_counter() - clock, (_resident("VmHWM") - before) / 1024)
    return usage, result


def in_fresh_process(function: Callable[..., Result], *arguments: object) -> Result:
    """Call in a new process, in which nothing was freed and kept before."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def _resident(name: str) -> int:
    """KiB from the kernel's account of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
