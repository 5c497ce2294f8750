"""Seconds of the processor, for what a user waits for. The least of several, since busy neighbours slow caches too."""

from __future__ import annotations

import time
from collections.abc import Callable

ATTEMPTS = 4


def least(measure: Callable[[], float]) -> float:
    """The least of `ATTEMPTS` measurements; the first ones also write bytecode and fill the page cache."""
    return min(measure() for _ in range(ATTEMPTS))


def of_call(call: Callable[[], object]) -> float:
    """The least that a call in this process takes."""

    def once() -> float:
        started = time.process_time()
        call()
        return time.process_time() - started

    return least(once)
