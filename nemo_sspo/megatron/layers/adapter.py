"""A low-rank adapter of one of Megatron's matrices, under tensor and sequence parallelism and in checkpoints.

    y = W x + alpha / rank  B A x,    A [rank, in] random, B [out, rank] zero at the start (arXiv:2106.09685, 4.1)

Tensor parallelism: both kinds of matrices have one factor cut along the rank or the output, which `product` gathers.

    W column-parallel, [out / TP, in]     A [rank / TP, in],  B [out / TP, rank], rows as W's, fused parts included
    W row-parallel,    [out, in / TP]     A [rank, in / TP],  B [out / TP, rank]
"""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from megatron.core.tensor_parallel import ColumnParallelLinear, RowParallelLinear
from megatron.core.tensor_parallel.mappings import (
    gather_from_sequence_parallel_region,
    scatter_to_sequence_parallel_region,
)
from megatron.core.transformer.mlp import apply_swiglu_sharded_factory
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from typing_extensions import override


@dataclass(frozen=True)
class Adapters:
    """The adapters of a model."""

    rank: int
    """A multiple of the tensor-parallel size."""
    alpha: float
    """The adapters' output is scaled by alpha / rank."""
    seed: int
    """Of A. Each matrix draws its whole A from this and its own name, so every layout starts from the same ones."""


class Adapter(nn.Module):
    """alpha / rank B A for one of Megatron's matrices, cut as the module's text says."""

    def __init__(self, linear: Any, adapters: Adapters, tp_group: ProcessGroup, *, is_gated: bool) -> None:
        """`is_gated`: `linear` is the gate above the up projection, each cut over the ranks for itself."""
        super().__init__()
        self._factor = adapters.alpha / adapters.rank
        self._tp_group = tp_group
        self._is_gated = is_gated
        self._is_row_parallel = _is_row_parallel(linear)
        sequence_parallel = linear.config.sequence_parallel
        # Transformer Engine's fused norm hands its output on, whole.
        self._gathers = sequence_parallel and not self._is_row_parallel and not _has_norm(linear)
        self._scatters = sequence_parallel and self._is_row_parallel
        config = copy.copy(linear.config)
        config.sequence_parallel = False  # A and B see whole sequences
        common: dict[str, Any] = {"config": config, "bias": False, "init_method": nn.init.zeros_}
        outputs, inputs = linear.weight.shape
        if self._is_row_parallel:
            inputs *= dist.get_world_size(tp_group)
            self.linear_in = RowParallelLinear(
                inputs, adapters.rank, input_is_parallel=True, skip_bias_add=True, **common
            )
        else:
            outputs *= dist.get_world_size(tp_group)
            self.linear_in = ColumnParallelLinear(
                inputs, adapters.rank, gather_output=True, disable_grad_reduce=sequence_parallel, **common
            )
        self.linear_out = ColumnParallelLinear(adapters.rank, outputs, gather_output=self._is_row_parallel, **common)

    @torch.no_grad()
    def draw(self, identity: str) -> None:
        """Give A random values: this rank's part of what `identity` stands for."""
        a = self.linear_in.weight
        parts, cut = dist.get_world_size(self._tp_group), 1 if self._is_row_parallel else 0
        shape = [size * parts if dimension == cut else size for dimension, size in enumerate(a.shape)]
        generator = torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(identity.encode()).digest()[:7], "big"))
        whole = nn.init.xavier_normal_(torch.empty(shape), generator=generator)
        a.copy_(whole.chunk(parts, dim=cut)[dist.get_rank(self._tp_group)])

    @override
    def forward(self, x: Tensor) -> Tensor:
        if self._gathers:
            x = gather_from_sequence_parallel_region(x, group=self._tp_group)
        y, _ = self.linear_out(self.linear_in(x)[0])
        if self._scatters:
            y = scatter_to_sequence_parallel_region(y, group=self._tp_group)
        return y * self._factor

    def product(self) -> Tensor:
        """alpha / rank B A, this rank's part of it, in fp32. Collective over TP."""
        a, b = self.linear_in.weight.float(), self.linear_out.weight.float()
        if self._is_row_parallel:
            b = gather_from_sequence_parallel_region(b, group=self._tp_group)
        else:
            a = gather_from_sequence_parallel_region(a, group=self._tp_group)
        return self._factor * (b @ a)

    def whole(self) -> tuple[Tensor, Tensor]:
        """A [rank, in] and B [out, rank] of all ranks, in W's rows. Collective over TP."""
        a, b = self.linear_in.weight, self.linear_out.weight
        if self._is_row_parallel:
            a = gather_from_sequence_parallel_region(a.t().contiguous(), group=self._tp_group).t()
        else:
            a = gather_from_sequence_parallel_region(a, group=self._tp_group)
        b = gather_from_sequence_parallel_region(b, group=self._tp_group)
        if self._is_gated:  # each rank has its part of the gate, and below it its part of the up projection
            parts = [part.chunk(2) for part in b.chunk(dist.get_world_size(self._tp_group))]
            b = torch.cat([part[half] for half in (0, 1) for part in parts])
        return a, b

    def sharded_state_dict(self, prefix: str, sharded_offsets: tuple = (), metadata: dict | None = None) -> dict:
        """The two matrices, as Megatron's checkpoints hold them."""
        state = self.linear_in.sharded_state_dict(f"{prefix}linear_in.", sharded_offsets, metadata)
        out = self.linear_out.sharded_state_dict(f"{prefix}linear_out.", sharded_offsets, metadata)
        if self._is_gated:
            key = f"{prefix}linear_out.weight"
            out[key] = apply_swiglu_sharded_factory(out[key], sharded_offsets)
        return state | out


class AdaptedLinear(nn.Module):
    """A matrix and its adapter. In a state dict the matrix is where it would be without one."""

    def __init__(self, to_wrap: Any, adapter: Adapter) -> None:
        super().__init__()
        self.to_wrap = to_wrap
        self.adapter = adapter
        if _has_norm(to_wrap):
            to_wrap.return_layernorm_output = True
            to_wrap.return_layernorm_output_gathered = to_wrap.config.sequence_parallel

    @override
    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        output, bias = self.to_wrap(x, *args, **kwargs)
        if _has_norm(self.to_wrap):
            output, x = output
        return output + self.adapter(x.contiguous()).reshape(output.shape), bias

    @override
    def state_dict(self, *, destination: Any = None, prefix: str = "", keep_vars: bool = False) -> Any:
        state = self.to_wrap.state_dict(destination=destination, prefix=prefix, keep_vars=keep_vars)
        return self.adapter.state_dict(destination=state, prefix=f"{prefix}adapter.", keep_vars=keep_vars)

    def sharded_state_dict(self, prefix: str = "", sharded_offsets: tuple = (), metadata: dict | None = None) -> dict:
        """Of the matrix and of the adapter, below ``adapter``."""
        return self.to_wrap.sharded_state_dict(prefix, sharded_offsets, metadata) | self.adapter.sharded_state_dict(
            f"{prefix}adapter.", sharded_offsets, metadata
        )

    @override
    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        own = [key for key in state_dict if key.startswith(prefix) and "." not in key.removeprefix(prefix)]
        for key in own:
            state_dict[f"{prefix}to_wrap.{key.removeprefix(prefix)}"] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *args)


def _is_row_parallel(linear: nn.Module) -> bool:
    """Megatron's own matrices say so by their class, Transformer Engine's by a field."""
    return isinstance(linear, RowParallelLinear) or getattr(linear, "parallel_mode", None) == "row"


def _has_norm(linear: nn.Module) -> bool:
    """Transformer Engine's matrix with the norm before it, which the adapter's input comes from."""
    return hasattr(linear, "return_layernorm_output")
