"""Forward passes of little padding, in the precision that suits the device. Legend: R rows."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray


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
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]


def token_budget(batch_tokens: int | None, device: torch.device) -> int:
    """Token budget of a ``batch_tokens`` setting: what fills a GPU, or what stays in a processor's cache."""
    return batch_tokens or (16384 if device.type == "cuda" else 2048)
