"""Flex-attention with its gradient on a CPU."""

from __future__ import annotations

from contextlib import AbstractContextManager
from unittest import mock

from torch.nn.attention import flex_attention


def flex_on_cpu() -> AbstractContextManager:
    """torch refuses the gradient on a CPU by a check of the device in front. What runs behind it, uncompiled, is the
    same function, its derivative and the same masks as on a GPU; only the kernel that Triton makes of them is missing.
    """
    return mock.patch.object(flex_attention, "_validate_device", _accept)


def _accept(*_tensors: object) -> None:
    """A function rather than a mock, which dynamo does not trace."""
