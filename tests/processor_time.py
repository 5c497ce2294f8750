"""Seconds of the processor, for what a user waits for. The least of several, since busy neighbours slow caches too."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

ATTEMPTS = 4


def least(measure: Callable[[], float]) -> float:
    """The least of `ATTEMPTS` measurements; the first ones also write bytecode and fill the page cache."""
    return min(measure() for _ in range(ATTEMPTS))


def of_imports(*modules: str) -> float:
    """The least that a new interpreter takes to start and import these: what this machine can do at the moment."""
    script = f"import time, {', '.join(modules)}; print(time.process_time())"

    def once() -> float:
        return float(subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, timeout=60).stdout)

    return least(once)


def of_call(call: Callable[[], object]) -> float:
    """The least that a call in this process takes."""

    def once() -> float:
        started = time.process_time()
        call()
        return time.process_time() - started

    return least(once)
