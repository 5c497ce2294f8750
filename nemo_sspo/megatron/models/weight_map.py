"""Tensor names and layouts between Hugging Face and Megatron; every function here is exact (moves bits only).

Megatron keeps, in one matrix, for each group its Q query heads, then its key head, then its value head; and the
feed-forward's gate above its up projection. Names are those of Megatron's local layer spec; checkpoints store both
specs under one set of keys, so a model built with Transformer Engine reads the same files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from nemo_sspo.errors import UserError
from nemo_sspo.megatron.models.families import family_of
from nemo_sspo.megatron.models.family import Family, HFConfig
from nemo_sspo.megatron.models.layout import padded_vocab_size


@dataclass(frozen=True)
class Shape:
    """What the conversion needs to know of a model."""

    layers: int
    groups: int
    heads_per_group: int
    head_dim: int
    vocab_size: int
    tied: bool
    family: Family

    @classmethod
    def of(cls, config: HFConfig) -> Shape:
        """Read the shape from a Hugging Face config."""
        groups = config.key_value_heads
        return cls(
            layers=config.require("num_hidden_layers"),
            groups=groups,
            heads_per_group=config.require("num_attention_heads") // groups,
            head_dim=config.head_dim,
            vocab_size=config.require("vocab_size"),
            tied=config.tied,
            family=family_of(config),
        )

    def renamed(self) -> Iterator[tuple[str, str]]:
        """(Megatron name, Hugging Face name) of the tensors that are the same on both sides."""
        yield "decoder.final_layernorm.weight", "model.norm.weight"
        for layer in range(self.layers):
            ours, theirs = f"decoder.layers.{layer}", f"model.layers.{layer}"
            for our_name, their_name in self.family.layer.items():
                yield f"{ours}.{our_name}.weight", f"{theirs}.{their_name}.weight"
            if self.family.qk_norm:
                yield f"{ours}.self_attention.q_layernorm.weight", f"{theirs}.self_attn.q_norm.weight"
                yield f"{ours}.self_attention.k_layernorm.weight", f"{theirs}.self_attn.k_norm.weight"

    def vocabulary(self) -> Iterator[tuple[str, str]]:
        """(Megatron name, Hugging Face name) of the tensors with one row per token id."""
        yield "embedding.word_embeddings.weight", "model.embed_tokens.weight"
        if not self.tied:
            yield "output_layer.weight", "lm_head.weight"

    def qkv(self) -> Iterator[tuple[str, tuple[str, str, str]]]:
        """(Megatron name, names of query, key and value) of the fused projections."""
        kinds = ("weight", "bias") if self.family.qkv_bias else ("weight",)
        for layer in range(self.layers):
            for kind in kinds:
                attention = f"model.layers.{layer}.self_attn"
                yield (
                    f"decoder.layers.{layer}.self_attention.linear_qkv.{kind}",
                    (f"{attention}.q_proj.{kind}", f"{attention}.k_proj.{kind}", f"{attention}.v_proj.{kind}"),
                )

    def gate_up(self) -> Iterator[tuple[str, tuple[str, str]]]:
        """(Megatron name, names of gate and up) of the fused feed-forward inputs."""
        for layer in range(self.layers):
            mlp = f"model.layers.{layer}.mlp"
            yield f"decoder.layers.{layer}.mlp.linear_fc1.weight", (f"{mlp}.gate_proj.weight", f"{mlp}.up_proj.weight")


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


def to_megatron(hf: Mapping[str, Tensor], shape: Shape, *, what: str) -> dict[str, Tensor]:
    """State dict of a whole Megatron model from Hugging Face tensors; `what` names the source in errors.

    Raises UserError for a missing, a surplus or a wrongly shaped tensor.
    """
    consumed = _ConsumedTensors(hf, what)
    state: dict[str, Tensor] = {ours: consumed[theirs] for ours, theirs in shape.renamed()}
    for ours, theirs in shape.vocabulary():
        weight = consumed[theirs]
        if weight.shape[0] != shape.vocab_size:
            raise UserError(f"{what}: {theirs} has {weight.shape[0]} rows, config.json says {shape.vocab_size}")
        state[ours] = pad_vocabulary(weight)
    for ours, (query, key, value) in shape.qkv():
        state[ours] = fuse_qkv(consumed[query], consumed[key], consumed[value], shape)
    for ours, (gate, up) in shape.gate_up():
        state[ours] = torch.cat([consumed[gate], consumed[up]])
    # A tied head may be stored too; old checkpoints carry the rotary frequencies, which the config determines.
    derived = {name for name in hf if name.endswith("rotary_emb.inv_freq")}
    consumed.refuse_leftovers(derived | ({"lm_head.weight"} if shape.tied else set()))
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
