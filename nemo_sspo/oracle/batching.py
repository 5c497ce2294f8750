"""Forward passes of little padding, in the precision that suits the device. Legend: R rows."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from nemo_sspo.oracle.protocol import Row


def windows(rows: Sequence[Row], least: int) -> Iterator[slice]:
    """Cut rows into runs of at least that many (the last may be shorter), never between two rows of one prompt.

    Rows are equal only where their prompts are, so what is repeated within a prompt is seen within a window.
    """
    start = 0
    while start < len(rows):
        stop = min(start + least, len(rows))
        while stop < len(rows) and rows[stop].prompt == rows[stop - 1].prompt:
            stop += 1
        yield slice(start, stop)
        start = stop


def pack(lengths_R: NDArray[np.int64], batch_tokens: int) -> Iterator[NDArray[np.intp]]:
    """Cut rows, longest first, into batches whose padded size stays within `batch_tokens` (a longer row goes alone)."""
    order = np.argsort(-lengths_R, kind="stable")
    start = 0
    while start < len(order):
        count = max(1, batch_tokens // int(lengths_R[order[start]]))
        yield order[start : start + count]
        start += count


def torch_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Data type of a ``precision`` setting; ``auto`` is bfloat16 on a GPU and float32 on a CPU."""
    if precision == "auto":
        precision = "bfloat16" if device.type == "cuda" else "float32"
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]


def token_budget(batch_tokens: int | None, device: torch.device) -> int:
    """Token budget of a ``batch_tokens`` setting: what fills a GPU, or what stays in a processor's cache."""
    return batch_tokens or (16384 if device.type == "cuda" else 2048)
