"""Time, peak memory, FLOPs and rounding error of a piece of code."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler's own lines

import torch
from torch import Tensor
from torch.autograd.profiler import profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
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


class _Traffic(TorchDispatchMode):
    """Adds up what operations read and write."""

    bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if not func.is_view:
            read = [leaf for leaf in tree_leaves((args, {k: v for k, v in kwargs.items() if k != "out"}))]
            self.bytes += _moved(func.overloadpacket.__name__, _sizes(read), sum(_sizes(tree_leaves(result))))
        return result


def _sizes(leaves: list[Any]) -> list[int]:
    return [leaf.numel() * leaf.element_size() for leaf in leaves if isinstance(leaf, Tensor)]


def _moved(name: str, read: list[int], written: int) -> int:
    match name:
        case "_unsafe_view" | "empty" | "empty_like" | "new_empty" | "detach" | "alias" | "_local_scalar_dense":
            return 0
        case "zeros_like" | "ones_like" | "new_zeros" | "new_full" | "full_like" | "zero_" | "fill_":
            return written
        case "copy_":  # what was there is not read
            return read[1] + written
        case "gather" | "index_select" | "index":  # as much as it takes
            return sum(read[1:]) + 2 * written
        case "scatter_add_" | "index_add_":  # as much as it adds to
            return sum(read[1:]) + 2 * read[-1]
    return sum(read) + written


def traffic(run: Callable[[], object]) -> int:
    """Bytes that the operations of `run` read and write, forward and backward: each tensor once per operation.

    With equal FLOPs the ratio of two runs' bytes bounds the ratio of their times, as far as a processor is busy with
    products or with its memory.
    """
    with _Traffic() as counter:
        run()
    return counter.bytes


def error(found: Tensor, truth: Tensor) -> float:
    """Largest difference, relative to the largest element."""
    return float((found.double() - truth.double()).abs().max() / truth.double().abs().max())
