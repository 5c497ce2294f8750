"""Fake CUDA tensors that know their indices: a dispatch mode over torch's `FakeTensorMode`.

    float tensors on the GPU       have a shape and a type, and no values
    integers and booleans there    carry their values beside them, on the host, as long as those can be computed, so
                                   that `nonzero`, `bincount`, `tolist` ... have answers
    tensors of the host            are what they are

A float that the host reads of the GPU is 1. What is said to the process groups goes to `process_groups.py`, what is
made to the ledger's counters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch._ops import HigherOrderOperator
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.weak import WeakIdKeyDictionary

from tests.rehearsal import process_groups
from tests.rehearsal.counters import counters
from tests.rehearsal.synchronisations import WAITING

_aten = torch.ops.aten
# Larger indices are not carried: nothing asks for them, and the host would compute on them for long.
_MOST_VALUES = 1 << 22
_MOST_BYTES_ON_HOST = 1 << 20
# The size of the result is a matter of values.
_DYNAMIC = {
    _aten.nonzero.default,
    _aten.bincount.default,
    _aten.masked_select.default,
    _aten.repeat_interleave.Tensor,
    _aten.index.Tensor,
}
_FACTORIES = {"arange", "zeros", "ones", "full", "scalar_tensor", "eye"}
_PRODUCTS = {"mm", "bmm", "addmm", "baddbmm"}
_KEPT_TYPES = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


class FakeGpu(TorchDispatchMode):
    """Enter it in the thread that runs the rank. Everything that lands on the GPU inside is fake."""

    supports_higher_order_operators = True

    def __init__(self, higher_order: Mapping[Any, Callable[..., Any]]) -> None:
        """`higher_order`: what is done in place of torch's higher-order operators."""
        super().__init__()
        # The mode itself asks for a device guard and a context, which a pretended device cannot give.
        fake_tensor.init_gpu_context = lambda *_: None
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)
        FakeTensor.tolist = lambda tensor: self.to_list(tensor)
        self._higher_order = higher_order
        self._values = WeakIdKeyDictionary()
        self._lifted: list[bool] = []

    def __enter__(self) -> FakeGpu:
        # Else `torch.tensor(..., device="cuda")` makes a real one without asking the mode.
        self._lifted.append(torch._C._only_lift_cpu_tensors())
        torch._C._set_only_lift_cpu_tensors(True)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        # What it was before: the mode enters itself once more for operators that it takes apart.
        torch._C._set_only_lift_cpu_tensors(self._lifted.pop())
        super().__exit__(*error)

    # --- values ------------------------------------------------------------------------------------------------------

    def values(self, tensor: Tensor) -> Tensor | None:
        """What a tensor holds, as a tensor of the host; None for what is not known."""
        return self._values.get(tensor) if isinstance(tensor, FakeTensor) else tensor

    def keep(self, tensor: Tensor, values: Tensor) -> None:
        if isinstance(tensor, FakeTensor) and values.dtype in _KEPT_TYPES and values.numel() <= _MOST_VALUES:
            self._values[tensor] = values

    def on_host(self, tensor: Tensor) -> Tensor:
        """A tensor of the GPU as the host reads it: its values, or ones."""
        known = self.values(tensor)
        if known is not None:
            return known.clone()
        if tensor.numel() * tensor.element_size() > _MOST_BYTES_ON_HOST:
            with self.fake:
                return torch.empty(tensor.shape, dtype=tensor.dtype)
        with _disable_current_modes():
            return torch.ones(tensor.shape, dtype=tensor.dtype)

    def to_list(self, tensor: Tensor) -> Any:
        """`Tensor.tolist`: one copy. A fake tensor would read its elements one by one."""
        self._wait(tensor, "tolist")
        return self.on_host(tensor).tolist()

    # --- operators ---------------------------------------------------------------------------------------------------

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if isinstance(func, HigherOrderOperator):
            with self:  # what it gives is made on the GPU
                return self._higher_order[func](*args, **kwargs)
        flat, _ = tree_flatten((args, kwargs))
        tensors = [value for value in flat if isinstance(value, Tensor)]
        if func.namespace == "c10d":
            return process_groups.dispatch(self, func, args, tensors)
        if not _is_fake(flat, tensors):
            with _disable_current_modes():
                return func(*args, **kwargs)
        # In inference mode also operators arrive that are made of others, which may ask for values.
        if func.namespace == "aten" and func._can_decompose():
            with self:
                return func.decompose(*args, **kwargs)
        name = func._schema.name.split("::")[1]
        if name == "record_stream":  # keeps memory that is not there from being used again
            return None
        if (served := self._served(func, name, args, kwargs, tensors)) is not None:
            return served
        known = self._known(func, name, args, kwargs, tensors)
        if func in _DYNAMIC and known is not None:
            with self.fake:
                out = torch.empty(known.shape, dtype=known.dtype, device=_device_of(tensors))
        elif func is _aten.masked_select.default and (mask := self.values(args[1])) is not None:
            with _disable_current_modes():
                selected = int(mask.sum())
            with self.fake:  # what is selected is not known, but how much
                out = torch.empty(selected, dtype=args[0].dtype, device=args[0].device)
        elif name in WAITING and func is not _aten.repeat_interleave.Tensor:
            raise RuntimeError(f"{name} of values that the rehearsal does not know")
        else:
            with self.fake:
                out = func(*args, **kwargs)
        self._note(func, name, args, kwargs, tensors, out, known)
        return out

    def _served(
        self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], tensors: list[Tensor]
    ) -> Any:
        """What passes between the GPU and the host; None for all else."""
        if func is _aten._local_scalar_dense.default:
            self._wait(tensors[0], "item")
            known = self.values(tensors[0])
            if known is not None:
                return known.reshape(-1)[0].item()
            return {torch.bool: False}.get(tensors[0].dtype, 1.0 if tensors[0].is_floating_point() else 1)
        if func is _aten.equal.default:
            known = [self.values(tensor) for tensor in tensors]
            self._wait(tensors[0], "equal")
            return all(value is None for value in known) or torch.equal(*known)
        if name == "_to_copy" and _is_gpu(tensors[0]) and _device_type(kwargs.get("device")) == "cpu":
            if not kwargs.get("non_blocking"):
                self._wait(tensors[0], "copy to the host")
            host = self.on_host(tensors[0])
            return host.to(kwargs["dtype"]) if kwargs.get("dtype") else host
        if name == "copy_" and _is_gpu(args[1]) and not _is_gpu(args[0]):
            if not (args[2] if len(args) > 2 else kwargs.get("non_blocking")):
                self._wait(args[1], "copy to the host")
            if isinstance(args[0], FakeTensor):
                return None
            with _disable_current_modes():
                return args[0].copy_(self.on_host(args[1]))
        if func is _aten.split.Tensor and args[0].shape[args[2] if len(args) > 2 else 0] == 0:
            return [args[0].view_as(args[0])]  # `FakeTensorMode` fails where there is nothing to split
        if name in ("_pin_memory", "is_pinned"):
            return args[0] if name == "_pin_memory" else True
        return None

    def _known(self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], tensors: list[Tensor]) -> Any:
        """The operator on the values, where all are known and the result is one of indices."""
        if func in (_aten.index.Tensor, _aten.repeat_interleave.Tensor) or name in WAITING:
            pass
        elif not tensors and name not in _FACTORIES:
            return None
        if any(self.values(tensor) is None for tensor in tensors):
            return None
        if torch.Tag.nondeterministic_seeded in func.tags or _elements(args, tensors) > _MOST_VALUES:
            return None
        if not any(tensor.dtype in _KEPT_TYPES for tensor in tensors) and not _makes_indices(name, args, kwargs):
            return None

        def host(value: Any) -> Any:
            if isinstance(value, Tensor):
                return self.values(value)
            return torch.device("cpu") if isinstance(value, torch.device) else value

        plain = {key: False if key in ("pin_memory", "non_blocking") else host(value) for key, value in kwargs.items()}
        with _disable_current_modes():
            return func(*tree_map(host, args), **tree_map(host, plain))

    # --- what is counted ---------------------------------------------------------------------------------------------

    def _note(
        self,
        func: Any,
        name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        tensors: list[Tensor],
        out: Any,
        known: Any,
    ) -> None:
        outs = [value for value in tree_flatten(out)[0] if isinstance(value, FakeTensor)]
        if known is None:
            self._forget_what_is_written(func, args)
        else:
            found = [value for value in tree_flatten(known)[0] if isinstance(value, Tensor)]
            for fake, values in zip(outs, found, strict=True):
                self.keep(fake, values)
        if name in WAITING:
            self._wait(tensors[0], name)
        elif func is _aten.index.Tensor and _has_mask(args[1]):
            self._wait(tensors[0], "nonzero")
        elif name in ("_to_copy", "copy_") and _is_gpu(outs[0]) and not _is_gpu(tensors[-1]):
            is_asynchronous = args[2] if name == "copy_" and len(args) > 2 else kwargs.get("non_blocking")
            if not is_asynchronous:
                self._wait(outs[0], "copy to the GPU")
        for tensor in outs:
            if _is_gpu(tensor):
                counters.memory.note(tensor)
                if tensor.dtype is torch.float64 and counters.waits.is_in_microbatches:
                    counters.doubles.append(tuple(tensor.shape))
        if name in _PRODUCTS:
            first, second = tensors[-2:] if not func._overloadname.endswith("out") else tensors[-3:-1]
            counters.work.product(first.shape[-2], second.shape[-1], first.shape[-1], first.shape[:-2].numel())

    def _forget_what_is_written(self, func: Any, args: tuple[Any, ...]) -> None:
        for argument, value in zip(func._schema.arguments, args, strict=False):
            if argument.alias_info is not None and argument.alias_info.is_write and isinstance(value, FakeTensor):
                self._values.pop(value, None)

    @staticmethod
    def _wait(tensor: Tensor, what: str) -> None:
        if _is_gpu(tensor):
            counters.waits.note(what)


def _is_gpu(value: Any) -> bool:
    return isinstance(value, Tensor) and value.device.type == "cuda"


def _is_fake(flat: list[Any], tensors: list[Tensor]) -> bool:
    return any(isinstance(tensor, FakeTensor) for tensor in tensors) or any(
        isinstance(value, torch.device) and value.type == "cuda" for value in flat
    )


def _device_type(device: Any) -> str | None:
    return None if device is None else torch.device(device).type


def _device_of(tensors: list[Tensor]) -> torch.device:
    return next((tensor.device for tensor in tensors if isinstance(tensor, FakeTensor)), torch.device("cpu"))


def _elements(args: tuple[Any, ...], tensors: list[Tensor]) -> int:
    if tensors:
        return max(tensor.numel() for tensor in tensors)
    return torch.Size(args[0]).numel() if args and isinstance(args[0], list | tuple) else 0


def _makes_indices(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a factory's result is one of integers or booleans."""
    dtype = kwargs.get("dtype")
    if dtype is not None:
        return dtype in _KEPT_TYPES
    return name == "arange" and all(isinstance(value, int) for value in args)


def _has_mask(indices: Any) -> bool:
    return any(isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in indices)
