"""What a stage's model takes of its GPU."""

import sys


def peak_gpu_memory_gib() -> float | None:
    """The most that this process's tensors have taken of its GPU; None where none is in use."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    return float(torch.cuda.max_memory_allocated()) / 2**30
