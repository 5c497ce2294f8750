"""Seconds of a function on a GPU or a processor."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

_REPEATS = 5


def seconds(function: Callable[[], object], device: str, repeats: int = _REPEATS) -> float:
    """Of one call, the quickest of several after a first that does not count."""
    function()
    return min(_once(function, device) for _ in range(repeats))


def _once(function: Callable[[], object], device: str) -> float:
    _wait(device)
    begun = time.perf_counter()
    function()
    _wait(device)
    return time.perf_counter() - begun


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
