"""Kernels that are not Transformer Engine's: what they take, give and keep, without their insides.

Triton's            launched with all checks of the code around them, and nothing runs
torch.compile       the function itself, as one kernel: what it makes and drops inside is never in memory
flex-attention      torch's own function down to its higher-order operator; there, the output and each query's sum
Apex                the module that Megatron looks for before it adds weights' gradients up in fp32
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from functools import wraps
from importlib.machinery import ModuleSpec
from typing import Any

import torch
from torch import Tensor

from tests.rehearsal.counters import counters

APEX = "fused_weight_gradient_mlp_cuda"
"""Of NGC's images."""


def compile_as_one_kernel(function: Callable[..., Any] | None = None, **_options: Any) -> Any:
    """`torch.compile`."""
    if function is None:
        return compile_as_one_kernel

    @wraps(function)
    def kernel(*args: Any, **kwargs: Any) -> Any:
        with counters.memory.fused():
            return function(*args, **kwargs)

    return kernel


def install_before_imports() -> None:
    """Megatron takes `torch.compile` and looks for Apex while it is imported."""
    torch.compile = compile_as_one_kernel
    apex = types.ModuleType(APEX)
    apex.__spec__ = ModuleSpec(APEX, None)
    apex.wgrad_gemm_accum_fp32 = _add_weight_gradient
    sys.modules[APEX] = apex
    # Megatron's schedules save and restore what autograd computes on other threads, which see no dispatch mode.
    torch.autograd.set_multithreading_enabled(False)


def _add_weight_gradient(input_NI: Tensor, grad_NO: Tensor, main_grad_OI: Tensor) -> None:
    counters.work.product(*main_grad_OI.shape, len(input_NI))


class _Launch:
    """A Triton kernel: `kernel[grid](*arguments)`."""

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        if not grid or min(grid) < 1:
            raise ValueError(f"a grid of {grid}")

        def launch(*_args: Any, **_kwargs: Any) -> None: ...

        return launch


def install() -> None:
    """Replace the project's Triton kernels, after its import."""
    from nemo_sspo.megatron.head import tile_triton

    for name, kernel in vars(tile_triton).items():
        if name.endswith("_kernel") and not isinstance(kernel, _Launch):
            setattr(tile_triton, name, _Launch(kernel))


def higher_order() -> dict[Any, Callable[..., Any]]:
    from torch._higher_order_ops.flex_attention import flex_attention, flex_attention_backward

    return {flex_attention: _flex_attention, flex_attention_backward: _flex_attention_backward}


def _flex_attention(q: Tensor, k: Tensor, v: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Output, the logarithm of each query's sum, and its maximum; [B, N, S, D] as the query is."""
    _count(q, k, products=2)
    statistics = [torch.empty(q.shape[:-1], dtype=torch.float32, device=q.device) for _ in range(2)]
    return torch.empty(*q.shape[:-1], v.shape[-1], dtype=q.dtype, device=q.device), *statistics


def _flex_attention_backward(q: Tensor, k: Tensor, v: Tensor, *_: Any) -> tuple[Any, ...]:
    """Gradients; before them the kernel sums output times gradient of each query."""
    _count(q, k, products=5)
    torch.empty(q.shape[:-1], dtype=torch.float32, device=q.device)
    return *(torch.empty_like(x) for x in (q, k, v)), ()


def _count(q: Tensor, k: Tensor, *, products: int) -> None:
    scores = q.shape[0] * q.shape[1] * q.shape[2] * k.shape[2]
    counters.work.attention(scores, q.shape[-1], products=products)
