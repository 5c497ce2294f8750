"""Tensor names and layouts between Hugging Face and Megatron; every function here is exact (moves bits only).

Megatron keeps, in one matrix, for each group its Q query heads, then its key head, then its value head; and the
feed-forward's gate above its up projection. Names are those of Megatron's local layer spec; checkpoints store both
specs under one set of keys, so a model built with Transformer Engine reads the same files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from nemo_sspo.megatron.models.layout import padded_vocab_size
from nemo_sspo.megatron.models.shape import Shape


@dataclass(frozen=True)
class Conversion:
    """A tensor of the whole Megatron model, and the tensors of the Hugging Face model that it is made of."""

    ours: str
    theirs: tuple[str, ...]
    join: Callable[..., Tensor]
    """Those of Hugging Face, one argument each -> Megatron's. `Shape.problems` finds nothing wrong with them."""
    split: Callable[[Tensor], Sequence[Tensor]]
    """Its inverse; what it returns may be views."""


def conversions(shape: Shape) -> Iterator[Conversion]:
    """Of every tensor of a policy, each one's tensors on both sides named once."""
    for ours, theirs in shape.renamed():
        yield Conversion(ours, (theirs,), _same, _alone)
    for ours, theirs in shape.vocabulary():
        yield Conversion(ours, (theirs,), pad_vocabulary, partial(_cut_vocabulary, rows=shape.vocab_size))
    for ours, projections in shape.qkv():
        yield Conversion(ours, projections, partial(fuse_qkv, shape=shape), partial(split_qkv, shape=shape))
    for ours, halves in shape.gate_up():
        yield Conversion(ours, halves, _stack, _halves)


def fuse_qkv(query: Tensor, key: Tensor, value: Tensor, shape: Shape) -> Tensor:
    """Interleave [G*Q*D, ...], [G*D, ...], [G*D, ...] by group into [G*(Q+2)*D, ...]; weights or biases."""
    rest = query.shape[1:]
    parts = [part.reshape(shape.groups, -1, shape.head_dim, *rest) for part in (query, key, value)]
    return torch.cat(parts, dim=1).reshape(-1, *rest)


def split_qkv(fused: Tensor, shape: Shape) -> tuple[Tensor, Tensor, Tensor]:
    """Inverse of `fuse_qkv`."""
    rest = fused.shape[1:]
    grouped = fused.reshape(shape.groups, shape.heads_per_group + 2, shape.head_dim, *rest)
    query, key, value = grouped.split([shape.heads_per_group, 1, 1], dim=1)
    return query.reshape(-1, *rest), key.reshape(-1, *rest), value.reshape(-1, *rest)


def pad_vocabulary(weight_VH: Tensor) -> Tensor:
    """Zero rows up to the padded vocabulary."""
    rows = padded_vocab_size(weight_VH.shape[0]) - weight_VH.shape[0]
    return torch.cat([weight_VH, weight_VH.new_zeros(rows, weight_VH.shape[1])]) if rows else weight_VH


def _cut_vocabulary(weight_VH: Tensor, rows: int) -> tuple[Tensor]:
    return (weight_VH[:rows],)


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _alone(tensor: Tensor) -> tuple[Tensor]:
    return (tensor,)


def _stack(gate: Tensor, up: Tensor) -> Tensor:
    return torch.cat([gate, up])


def _halves(fused: Tensor) -> Sequence[Tensor]:
    return fused.chunk(2)
