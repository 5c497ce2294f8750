"""Watch what a runtime could patch."""

from __future__ import annotations

import torch
from megatron.core.tensor_parallel import random as megatron_random
from torch.overrides import _get_current_function_mode_stack


def patchable_state() -> dict[str, object]:
    """Everything that `cpu_runtime` could have touched."""
    state = {f"torch.cuda.{name}": value for name, value in vars(torch.cuda).items() if callable(value)}
    state |= {f"torch.cuda.random.{name}": value for name, value in vars(torch.cuda.random).items()}
    state |= {f"megatron random.{name}": value for name, value in vars(megatron_random).items() if callable(value)}
    state["modes"] = len(_get_current_function_mode_stack())
    return state
