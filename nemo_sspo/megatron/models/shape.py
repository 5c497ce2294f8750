"""The tensors of a policy, by its ``config.json``: their names on both sides, and their sizes. No torch.

The dry run compares them with the headers of the weights' files, and so does the import before it reads a tensor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

from nemo_sspo.artifacts.sources.weight_files import policy_weight_problems, weight_files
from nemo_sspo.artifacts.sources.weight_headers import TensorHeader, model_headers
from nemo_sspo.errors import UserError
from nemo_sspo.megatron.models.families import family_of
from nemo_sspo.megatron.models.family import Family, HFConfig
from nemo_sspo.megatron.models.feed_forward import FeedForward, Mixture, feed_forwards, routers
from nemo_sspo.megatron.models.fields import rope_scaling, transformer_fields, windowed_layers

_Sizes = tuple[tuple[str, int], ...]
"""Of each dimension: what config.json calls it, and its size."""


@dataclass(frozen=True)
class Shape:
    """What the conversion needs to know of a model, and the names of its tensors on both sides."""

    layers: int
    groups: int
    heads_per_group: int
    head_dim: int
    hidden_size: int
    intermediate_size: int
    vocab_size: int
    tied: bool
    family: Family
    mixture: Mixture | None
    has_windows: bool
    """Whether some layer's queries see no further back than a number of tokens."""

    @classmethod
    def of(cls, config: HFConfig) -> Shape:
        """Read the shape from a Hugging Face config."""
        groups = config.key_value_heads
        return cls(
            layers=config.layers,
            groups=groups,
            heads_per_group=config.count("num_attention_heads") // groups,
            head_dim=config.head_dim,
            hidden_size=config.count("hidden_size"),
            intermediate_size=config.count("intermediate_size"),
            vocab_size=config.count("vocab_size"),
            tied=config.tied,
            family=family_of(config),
            mixture=family_of(config).mixture(config),
            has_windows=any(windowed_layers(config, family_of(config))),
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
        yield from routers(self.mixture)
        for feed_forward in self._feed_forwards():
            yield f"{feed_forward.ours}.linear_fc2.weight", feed_forward.down

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
        for feed_forward in self._feed_forwards():
            yield f"{feed_forward.ours}.linear_fc1.weight", (feed_forward.gate, feed_forward.up)

    def _feed_forwards(self) -> Iterator[FeedForward]:
        return feed_forwards(self.layers, self.intermediate_size, self.mixture)

    def hugging_face(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor of Hugging Face's model, by its name."""
        return {name: tuple(size for _, size in dimensions) for name, dimensions in self._hugging_face()}

    def sizes(self) -> Iterator[int]:
        """Parameters of each tensor of Megatron's model; its padding of the vocabulary is not counted."""
        theirs = {name: prod(shape) for name, shape in self.hugging_face().items()}
        for _, name in (*self.renamed(), *self.vocabulary()):
            yield theirs[name]
        for _, names in (*self.qkv(), *self.gate_up()):
            yield sum(theirs[name] for name in names)

    def problems(self, tensors: Mapping[str, TensorHeader], what: str) -> Iterator[str]:
        """The first tensor that is missing, that has no place in the family, and that has another shape; `what` names
        where the weights are."""
        sizes = dict(self._hugging_face())
        if missing := next((name for name in sizes if name not in tensors), None):
            yield f"{what}: tensor {missing!r} is missing, which config.json's model has"
        # A tied head may be stored too; old checkpoints carry the rotary frequencies, which the config determines.
        known = {*sizes, *({"lm_head.weight"} if self.tied else ())}
        if left := sorted(name for name in tensors if name not in known and not name.endswith("rotary_emb.inv_freq")):
            yield f"{what}: {len(left)} tensors have no place in this family, first {left[0]!r}"
        for name, dimensions in sizes.items():
            expected = tuple(size for _, size in dimensions)
            if name in tensors and (found := tensors[name].shape) != expected:
                says = " x ".join(f"{key}={size}" for key, size in dimensions)
                yield f"{what}: {name} is {' x '.join(map(str, found))}, config.json says {says}"
                return

    def _hugging_face(self) -> Iterator[tuple[str, _Sizes]]:
        """Hugging Face name and sizes of every tensor."""
        hidden = ("hidden_size", self.hidden_size)
        queries = ("num_attention_heads x head_dim", self.groups * self.heads_per_group * self.head_dim)
        keys = ("num_key_value_heads x head_dim", self.groups * self.head_dim)
        matrices = {feed_forward.down: (hidden, feed_forward.size) for feed_forward in self._feed_forwards()}
        if self.mixture is not None:
            experts = (self.mixture.experts_key, self.mixture.experts)
            matrices |= {name: (experts, hidden) for _, name in routers(self.mixture)}
        for name in (name for _, name in self.renamed()):
            if name.endswith("self_attn.o_proj.weight"):
                yield name, (hidden, queries)
            else:
                vector = ("head_dim", self.head_dim) if name.endswith(_NORMS_OF_HEADS) else hidden
                yield name, matrices.get(name, (vector,))
        for name in (name for _, name in self.vocabulary()):
            yield name, (("vocab_size", self.vocab_size), hidden)
        for ours, projections in self.qkv():
            for name, rows in zip(projections, (queries, keys, keys), strict=True):
                yield name, (rows,) if ours.endswith("bias") else (rows, hidden)
        for feed_forward in self._feed_forwards():
            yield from ((name, (feed_forward.size, hidden)) for name in (feed_forward.gate, feed_forward.up))


_NORMS_OF_HEADS = ("self_attn.q_norm.weight", "self_attn.k_norm.weight")


def import_problems(what: str, directory: Path, config: HFConfig) -> Iterator[str]:
    """Everything for which the import refuses a policy; `what` names it, `config` is its ``config.json``."""
    shape = None
    try:
        transformer_fields(config)
        rope_scaling(config)
        config.count("max_position_embeddings")  # which the bindings read
        shape = Shape.of(config)
    except UserError as error:
        yield str(error)
    damaged = list(policy_weight_problems(what, directory, config.raw))
    yield from damaged
    if shape is not None and not damaged:
        yield from shape.problems(model_headers(weight_files(directory)), what)
