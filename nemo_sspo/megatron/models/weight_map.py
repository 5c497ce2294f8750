"""Tensor names and layouts between Hugging Face and Megatron; every function here is exact (moves bits only).

Megatron keeps, in one matrix, for each group its Q query heads, then its key head, then its value head; and the
feed-forward's gate above its up projection. Names are those of Megatron's local layer spec; checkpoints store both
specs under one set of keys, so a model built with Transformer Engine reads the same files.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from nemo_sspo.errors import UserError
from nemo_sspo.megatron.models.layout import padded_vocab_size
from nemo_sspo.megatron.models.shape import Shape


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
    return torch.cat([weight_VH, weight_VH.new_zeros(rows, weight_VH.shape[1])])


class _ConsumedTensors:
    """A mapping that records which of its tensors were read."""

    def __init__(self, tensors: Mapping[str, Tensor], what: str) -> None:
        self._tensors = tensors
        self._what = what
        self._left = set(tensors)

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._tensors:
            raise UserError(f"{self._what}: tensor {name!r} is missing")
        self._left.discard(name)
        return self._tensors[name]

    def refuse_leftovers(self, expected: set[str]) -> None:
        """Raises UserError for tensors that the conversion would silently lose."""
        if left := sorted(self._left - expected):
            raise UserError(f"{self._what}: {len(left)} tensors have no place in this family, first {left[0]!r}")


def to_megatron(hf: Mapping[str, Tensor], shape: Shape) -> dict[str, Tensor]:
    """State dict of a whole Megatron model from Hugging Face tensors, of which `Shape.problems` finds nothing wrong."""
    state: dict[str, Tensor] = {ours: hf[theirs] for ours, theirs in shape.renamed()}
    for ours, theirs in shape.vocabulary():
        state[ours] = pad_vocabulary(hf[theirs])
    for ours, (query, key, value) in shape.qkv():
        state[ours] = fuse_qkv(hf[query], hf[key], hf[value], shape)
    for ours, (gate, up) in shape.gate_up():
        state[ours] = torch.cat([hf[gate], hf[up]])
    return state


def to_hugging_face(state: Mapping[str, Tensor], shape: Shape, *, what: str) -> dict[str, Tensor]:
    """Inverse of `to_megatron`: the tensors of the Hugging Face model, vocabulary padding cut off."""
    consumed = _ConsumedTensors(state, what)
    hf: dict[str, Tensor] = {theirs: consumed[ours] for ours, theirs in shape.renamed()}
    for ours, theirs in shape.vocabulary():
        hf[theirs] = consumed[ours][: shape.vocab_size]
    for ours, names in shape.qkv():
        hf.update(zip(names, split_qkv(consumed[ours], shape), strict=True))
    for ours, (gate, up) in shape.gate_up():
        hf[gate], hf[up] = consumed[ours].chunk(2)
    consumed.refuse_leftovers({name for name in state if name.endswith("_extra_state")})
    return {name: tensor.contiguous() for name, tensor in hf.items()}
