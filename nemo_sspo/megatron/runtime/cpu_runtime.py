"""Run megatron-core over gloo on a machine that has no CUDA.

megatron-core takes a CUDA device for granted in a handful of places. `cpu_runtime()` serves exactly those places
while it is entered, and restores everything when it is left. Where CUDA is available it does nothing at all.

What is replaced, and its callers (paths inside megatron/core):

    torch.cuda.current_device      device of every communication buffer (tensor_parallel/mappings.py, pipeline_parallel/
                                   p2p_communication.py, distributed/param_and_grad_buffer.py) -> torch.device("cpu")
    torch.cuda.synchronize         after point-to-point transfers and around checkpoint writes -> nothing to wait for
    torch.cuda.{get,set}_rng_state, manual_seed, random.get_rng_state
                                   the RNG tracker forks one state per parallel region (tensor_parallel/random.py)
                                   -> the CPU generator, which is the one that CPU dropout draws from
    tensor_parallel.random._set_cuda_rng_state
                                   the same tracker's setter, which reaches into torch._C -> the CPU generator
    torch.cuda.Stream, stream, current_stream, default_stream
                                   data-parallel wrapping and copies of the experts' token counts on a side stream
                                   -> one program order, no streams
    moe.token_dispatcher.maybe_move_tensor_to_cpu
                                   leaves tensors on the host as they are, of which the all-to-all takes no counts
                                   -> what it makes of those on a GPU
    device="cuda" arguments        schedules.py, clip_grads.py, transformer/utils.py write the literal -> "cpu"
    Tensor.cuda, Tensor.to("cuda") rope tables, checkpoint loading -> the tensor itself
    pin_memory=True arguments      page-locked memory is a CUDA allocation -> pageable memory
    Tensor.type()                  the optimizers compare it with 'torch.cuda.FloatTensor'; answered so for megatron
                                   callers only, everyone else sees the truth
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode

_CPU = torch.device("cpu")
_CUDA_TYPE_NAMES = {
    torch.float32: "torch.cuda.FloatTensor",
    torch.float16: "torch.cuda.HalfTensor",
    torch.bfloat16: "torch.cuda.BFloat16Tensor",
}
_depth = 0


def _is_cuda(device: object) -> bool:
    if isinstance(device, torch.device):
        return device.type == "cuda"
    return isinstance(device, str) and device.startswith("cuda")


def _called_from_megatron() -> bool:
    """True when the Python caller of the torch function being served lives in megatron-core."""
    # 0 = this function, 1 = __torch_function__, 2 = the code that called the torch function
    return str(sys._getframe(2).f_globals.get("__name__", "")).startswith("megatron.")


class _CudaArgumentsToCpu(TorchFunctionMode):
    """Rewrites arguments that name a CUDA device; every other call passes untouched."""

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.Tensor.cuda:
            return args[0]
        if func is torch.Tensor.type and len(args) == 1 and not kwargs and _called_from_megatron():
            return _CUDA_TYPE_NAMES.get(args[0].dtype) or func(*args)
        if func is torch.Tensor.to and len(args) > 1 and _is_cuda(args[1]):
            args = (args[0], _CPU, *args[2:])
        if _is_cuda(kwargs.get("device")):
            kwargs = kwargs | {"device": _CPU}
        if kwargs.get("pin_memory"):
            kwargs = kwargs | {"pin_memory": False}
        return func(*args, **kwargs)


class _NoStream:
    """Stands for a CUDA stream and its events: with one program order there is nothing to wait for."""

    def __init__(self, *_args: object, **_kwargs: object) -> None: ...

    def synchronize(self) -> None: ...

    def wait_stream(self, _other: object) -> None: ...

    def wait_event(self, _event: object) -> None: ...

    def record_event(self) -> _NoStream:
        return self


def _get_rng_state(*_args: object, **_kwargs: object) -> torch.Tensor:
    return torch.get_rng_state()


def _set_rng_state(state: torch.Tensor, *_args: object, **_kwargs: object) -> None:
    torch.set_rng_state(state)


def _manual_seed(seed: int) -> None:
    torch.default_generator.manual_seed(int(seed))


def _on_host(tensor: Any, *, as_numpy: bool = False, record_stream: bool = False) -> Any:
    return tensor.numpy() if as_numpy and isinstance(tensor, torch.Tensor) else tensor


def _attribute_patches() -> list[tuple[object, str, object]]:
    from megatron.core.tensor_parallel import random as megatron_random
    from megatron.core.transformer.moe import token_dispatcher

    return [
        (torch.cuda, "current_device", lambda: _CPU),
        (torch.cuda, "synchronize", lambda *_args, **_kwargs: None),
        (torch.cuda, "get_rng_state", _get_rng_state),
        (torch.cuda.random, "get_rng_state", _get_rng_state),
        (torch.cuda, "set_rng_state", _set_rng_state),
        (torch.cuda, "manual_seed", _manual_seed),
        (megatron_random, "_set_cuda_rng_state", _set_rng_state),
        (token_dispatcher, "maybe_move_tensor_to_cpu", _on_host),
        (torch.cuda, "Stream", _NoStream),
        (torch.cuda, "stream", lambda _stream: nullcontext()),
        (torch.cuda, "current_stream", _NoStream),
        (torch.cuda, "default_stream", _NoStream),
    ]


@contextmanager
def cpu_runtime() -> Iterator[None]:
    """Let megatron-core run on the CPU inside the `with` block; a no-op where CUDA is available.

    May be nested (the outermost one serves). The argument rewriting is per thread, as every `TorchFunctionMode` is:
    enter it in the thread that runs the model. Forked children inherit it.
    """
    global _depth
    if torch.cuda.is_available() or _depth > 0:
        yield
        return
    with ExitStack() as stack:
        for owner, name, replacement in _attribute_patches():
            stack.enter_context(mock.patch.object(owner, name, replacement))
        stack.enter_context(_CudaArgumentsToCpu())
        _depth += 1
        try:
            yield
        finally:
            _depth -= 1
