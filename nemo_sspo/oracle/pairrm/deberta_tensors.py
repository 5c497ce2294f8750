"""The tensors of a DeBERTa-v2 by its ``config.json``: names and shapes, as transformers builds the model. No torch.

Left out are the word embeddings, whose rows are the checkpoint's: a PairRM may have more than its backbone's words.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from nemo_sspo.errors import UserError

Shape = tuple[int, ...]
_DEFAULTS = {
    "hidden_size": 1536,
    "num_hidden_layers": 24,
    "num_attention_heads": 24,
    "intermediate_size": 6144,
    "max_position_embeddings": 512,
    "type_vocab_size": 0,
    "max_relative_positions": -1,
    "position_buckets": -1,
    "conv_kernel_size": 0,
    "conv_groups": 1,
}
"""Of transformers, for what a file leaves out."""


def embedding_size(config: Mapping[str, Any], named: str) -> int:
    """Width of a word's embedding, which may be another one than the hidden states'; `named` is where `config` is."""
    return _count(config, "embedding_size", named, _count(config, "hidden_size", named))


def deberta_tensors(config: Mapping[str, Any], named: str) -> Iterator[tuple[str, Shape]]:
    """(name, shape) of every tensor but the word embeddings, layer by layer.

    Raises:
        UserError: a number of the configuration is none.
    """
    hidden, width = _count(config, "hidden_size", named), embedding_size(config, named)
    if config.get("position_biased_input", True):
        yield "embeddings.position_embeddings.weight", (_count(config, "max_position_embeddings", named), width)
    if types := _count(config, "type_vocab_size", named):
        yield "embeddings.token_type_embeddings.weight", (types, width)
    if width != hidden:
        yield "embeddings.embed_proj.weight", (hidden, width)
    yield from _norm("embeddings.LayerNorm", hidden)
    if config.get("relative_attention", False):
        yield "encoder.rel_embeddings.weight", (2 * _relative_positions(config, named), hidden)
    if "layer_norm" in _words(config.get("norm_rel_ebd")):
        yield from _norm("encoder.LayerNorm", hidden)
    if (kernel := _count(config, "conv_kernel_size", named)) > 0:
        groups = max(1, _count(config, "conv_groups", named))
        yield "encoder.conv.conv.weight", (hidden, hidden // groups, kernel)
        yield "encoder.conv.conv.bias", (hidden,)
        yield from _norm("encoder.conv.LayerNorm", hidden)
    for layer in range(_count(config, "num_hidden_layers", named)):
        for name, shape in _layer(config, named, hidden):
            yield f"encoder.layer.{layer}.{name}", shape


def _layer(config: Mapping[str, Any], named: str, hidden: int) -> Iterator[tuple[str, Shape]]:
    heads, feed_forward = (_count(config, key, named) for key in ("num_attention_heads", "intermediate_size"))
    projected = heads * _count(config, "attention_head_size", named, hidden // max(1, heads))
    projections = ["query_proj", "key_proj", "value_proj"]
    if config.get("relative_attention", False) and not config.get("share_att_key", False):
        positions = {"c2p": "pos_key_proj", "p2c": "pos_query_proj"}
        projections += [positions[kind] for kind in positions if kind in _words(config.get("pos_att_type"))]
    for projection in projections:
        yield from _linear(f"attention.self.{projection}", projected, hidden)
    yield from _linear("attention.output.dense", hidden, hidden)
    yield from _norm("attention.output.LayerNorm", hidden)
    yield from _linear("intermediate.dense", feed_forward, hidden)
    yield from _linear("output.dense", hidden, feed_forward)
    yield from _norm("output.LayerNorm", hidden)


def _linear(name: str, outputs: int, inputs: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (outputs, inputs)
    yield f"{name}.bias", (outputs,)


def _norm(name: str, size: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (size,)
    yield f"{name}.bias", (size,)


def _relative_positions(config: Mapping[str, Any], named: str) -> int:
    """Distances in one direction that have an embedding: the first setting that is above zero."""
    keys = ("position_buckets", "max_relative_positions", "max_position_embeddings")
    return next((size for key in keys if (size := _count(config, key, named)) > 0), 0)


def _words(value: Any) -> list[Any]:
    """A list, or one text of words between bars."""
    if isinstance(value, str):
        return [word.strip() for word in value.lower().split("|")]
    return value if isinstance(value, list) else []


def _count(config: Mapping[str, Any], key: str, named: str, default: int | None = None) -> int:
    value = config.get(key, _DEFAULTS[key] if default is None else default)
    if isinstance(value, bool) or not isinstance(value, int):
        raise UserError(f"{named}: {key}={value!r} is no whole number; fetch the file again")
    return value
