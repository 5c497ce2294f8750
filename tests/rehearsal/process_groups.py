"""Process groups of one rank alone, which serve CUDA tensors as NCCL's do, and no others; and what is said over them.

torch's fake process group stands behind both names: ``nccl`` has a backend for CUDA tensors alone, ``gloo`` for those
of the host, so that a tensor on the wrong side fails as it does on a cluster. Nothing is sent. What other ranks would
say is taken to be what this one says: sums and gathered objects are its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import FakeProcessGroup
from torch.distributed import distributed_c10d as c10d
from torch.distributed._tools.fake_collectives import _META_FUNCTIONS, create_fakework
from torch.distributed.checkpoint.utils import _DistWrapper
from torch.utils._python_dispatch import _disable_current_modes

from tests.rehearsal.counters import counters

if TYPE_CHECKING:
    from tests.rehearsal.fake_tensors import FakeGpu

_INTO_ANOTHER = {
    "_allgather_base_",
    "_reduce_scatter_base_",
    "allgather_",
    "allgather_into_tensor_coalesced_",
    "alltoall_",
    "alltoall_base_",
    "reduce_scatter_",
    "reduce_scatter_tensor_coalesced_",
}
"""The result goes to the first argument, what is sent is the second."""
_BACKENDS = {"nccl": ("pretended_nccl", ["cuda"]), "gloo": ("pretended_gloo", ["cpu"])}


def dispatch(gpu: FakeGpu, func: Any, args: tuple[Any, ...], tensors: list[Tensor]) -> Any:
    """A call of torch's: counted, and answered by what this rank says itself."""
    name = func._schema.name.split("::")[1]
    group = next((dist.ProcessGroup.unbox(value) for value in args if _is_group(value)), None)
    if "barrier" not in name and group is not None:
        for tensor in tensors:
            group._get_backend(tensor.device)  # raises where it has none
    sent = _sent(name, args, tensors)
    counters.traffic.note(name.strip("_"), group_name(group), sum(t.numel() * t.element_size() for t in sent))
    _hear_what_was_said(gpu, name, args)
    if name in _META_FUNCTIONS:
        return _META_FUNCTIONS[name](*args)
    return create_fakework(args, return_first_arg=len(func._schema.returns) > 1)


def _is_group(value: Any) -> bool:
    return isinstance(value, torch.ScriptObject) and "ProcessGroup" in str(value._type())


def _sent(name: str, args: tuple[Any, ...], tensors: list[Tensor]) -> list[Tensor]:
    """What this rank puts on the wire: not where the result goes, if that is another tensor."""
    return _flat(args[1]) if name in _INTO_ANOTHER else tensors


def _flat(value: Any) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else [tensor for item in value for tensor in _flat(item)]


def _hear_what_was_said(gpu: FakeGpu, name: str, args: tuple[Any, ...]) -> None:
    """The other ranks hold the same indices."""
    if name == "_allgather_base_" and (values := gpu.values(args[1])) is not None:
        with _disable_current_modes():
            heard = values.expand(args[0].numel() // values.numel(), *values.shape).reshape(args[0].shape).clone()
        gpu.keep(args[0], heard)
    if name != "allgather_":
        return
    for heard, own in zip((_flat(part) for part in args[0]), _flat(args[1]), strict=True):
        if (values := gpu.values(own)) is not None:
            for tensor in heard:
                gpu.keep(tensor, values.clone())


def group_name(group: dist.ProcessGroup | None) -> str:
    """Which of Megatron's groups it is; the smallest one of several that are the same."""
    from megatron.core import parallel_state as ps

    if group is None:
        return "?"
    names = {
        "tp": ps._TENSOR_MODEL_PARALLEL_GROUP,
        "pp": ps._PIPELINE_MODEL_PARALLEL_GROUP,
        "cp": ps._CONTEXT_PARALLEL_GROUP,
        "dp": ps._DATA_PARALLEL_GROUP,
        "dp_cp": ps._DATA_PARALLEL_GROUP_WITH_CP,
        "model": ps._MODEL_PARALLEL_GROUP,
        "embedding": ps._EMBEDDING_GROUP,
        "gloo dp": ps._DATA_PARALLEL_GROUP_GLOO,
        "gloo dp_cp": ps._DATA_PARALLEL_GROUP_WITH_CP_GLOO,
        "world": dist.group.WORLD,
    }
    return next((name for name, known in names.items() if known is group), group.group_desc or "?")


def pretend(rank: int, world_size: int) -> None:
    """Have torch.distributed make such groups from now on, in this process, for one rank of a world."""

    def make(_store: Any, group_rank: int, group_size: int, _timeout: Any) -> Any:
        return FakeProcessGroup(group_rank, group_size)

    for name, devices in _BACKENDS.values():
        if name not in dist.Backend.backend_list:
            dist.Backend.register_backend(name, make, devices=devices)
    initialize, new_group = c10d.init_process_group, c10d.new_group

    def init_process_group(backend: str, *_: Any, **__: Any) -> None:
        initialize(_BACKENDS[backend][0], store=dist.HashStore(), rank=rank, world_size=world_size)

    def new(ranks: Any = None, timeout: Any = None, backend: str | None = None, *_: Any, **options: Any) -> Any:
        kept = {key: value for key, value in options.items() if key in ("group_desc", "use_local_synchronization")}
        return new_group(ranks, backend=None if backend is None else _BACKENDS[backend][0], **kept)

    _replace("init_process_group", init_process_group)
    _replace("new_group", new)
    for name, function in _OBJECTS.items():
        _replace(name, function)
    _DistWrapper.reduce_scatter = _reduce_scatter
    _DistWrapper.all_reduce = _all_reduce


def _replace(name: str, function: Callable[..., Any]) -> None:
    setattr(dist, name, function)
    setattr(c10d, name, function)


def _all_gather_object(object_list: list[Any], obj: Any, group: Any = None) -> None:
    object_list[:] = [obj] * len(object_list)


def _gather_object(obj: Any, object_gather_list: list[Any] | None = None, dst: int = 0, group: Any = None) -> None:
    if object_gather_list is not None:
        object_gather_list[:] = [obj] * len(object_gather_list)


def _broadcast_object_list(object_list: list[Any], src: int = 0, group: Any = None, device: Any = None) -> None:
    """Every rank has the objects already."""


def _reduce_scatter(self: Any, _step: str, own: Callable[[], Any], together: Callable[[list[Any]], list[Any]]) -> Any:
    """Of a checkpoint's plans: what the first rank would make of all of them is made here."""
    return together([own()] * self.get_world_size())[self.rank]


def _all_reduce(self: Any, _step: str, own: Callable[[], Any], together: Callable[[list[Any]], Any]) -> Any:
    return together([own()] * self.get_world_size())


_OBJECTS: dict[str, Callable[..., Any]] = {
    "all_gather_object": _all_gather_object,
    "gather_object": _gather_object,
    "broadcast_object_list": _broadcast_object_list,
}
