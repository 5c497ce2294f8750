"""Time, peak memory, FLOPs and rounding error of a piece of code."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler's own lines

import torch
from torch import Tensor
from torch.autograd.profiler import profile
from torch.utils.flop_counter import FlopCounterMode

# More than any GPU's second-level cache: what the last run left there is gone when the next one starts.
_FLUSHED_BYTES = 256 * 2**20


def seconds(runs: Mapping[str, Callable[[], object]], *, repeats: int = 5) -> dict[str, float]:
    """Shortest of `repeats` times of each, taken in turns so that a busy machine slows all of them alike.

    On a GPU they are the device's own, from a cold cache. Without one it is processor time: what other processes take
    of a core does not count, though their use of its caches does.
    """
    best = dict.fromkeys(runs, float("inf"))
    for run in runs.values():
        run()
    for _ in range(repeats):
        for name, run in runs.items():
            best[name] = min(best[name], _once(run))
    return best


def _once(run: Callable[[], object]) -> float:
    if not torch.cuda.is_available():
        start = time.process_time()
        run()
        return time.process_time() - start
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.empty(_FLUSHED_BYTES, dtype=torch.int8, device="cuda").zero_()
    start.record()
    run()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1e3


def peak_bytes(run: Callable[[], object]) -> int:
    """Most bytes that torch's allocator has handed out at once during `run`, beyond what there was before.

    Counted from the allocator's own events on a CPU: the same number on every machine.
    """
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with profile(profile_memory=True) as recorded:
        run()
    events = [event for event in recorded.kineto_results.events() if event.name() == "[memory]"]
    live = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        most = max(most, live)
    return most


def flops(run: Callable[[], object]) -> int:
    """FLOPs of all matrix products of `run`, forward and backward; a multiply-add is two."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def error(found: Tensor, truth: Tensor) -> float:
    """Largest difference, relative to the largest element."""
    return float((found.double() - truth.double()).abs().max() / truth.double().abs().max())
