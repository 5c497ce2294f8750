"""How much host memory the conversion of a policy takes. No torch.

Each process holds one tensor of Megatron's model at a time, and at most three times as much beside it: its parts while
it is read, joined or cut, a copy that is rounded or written, and what torch keeps of the one before.
"""

from nemo_sspo.megatron.models.shape import Shape

MOST_PROCESSES = 8
"""That convert a policy; a storage that several nodes share is hardly faster with more."""
_LIBRARIES = 8 * 2**30
"""Beside the tensors: torch, Megatron and what they allocate, in all processes together."""
COPIES = 4
"""Of the tensor that a process converts, at most: measured in tests/megatron/checkpoints/test_peak_memory.py."""


def conversion_bytes(shape: Shape, value_bytes: int) -> int:
    """Of tensors, in all processes together, at most: as if these held the largest ones at the same time.

    Args:
        value_bytes: of a value where it is larger, in the Hugging Face model or in Megatron's.
    """
    return COPIES * value_bytes * sum(sorted(shape.sizes(), reverse=True)[:MOST_PROCESSES])


def host_bytes(shape: Shape, value_bytes: int) -> int:
    """Of a step that converts a policy, at most."""
    return conversion_bytes(shape, value_bytes) + _LIBRARIES
