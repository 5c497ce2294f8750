"""What a model family is: how its Hugging Face ``config.json`` is read, and what its layers have."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nemo_sspo.errors import UserError
from nemo_sspo.megatron.models.feed_forward import Mixture

_MOST = 2**31 - 1
_MOST_LAYERS = 10_000
"""Lists with an entry per layer are made."""
_MOST_EXPERTS = 100_000
"""Of all layers: each one's tensors are named."""


@dataclass(frozen=True)
class HFConfig:
    """A policy's ``config.json``: the raw mapping, with the family's defaults for keys that it leaves out."""

    raw: dict[str, Any]
    path: Path

    def get(self, key: str, default: Any = None) -> Any:
        """Value of `key`; `default` where it is missing or null."""
        value = self.raw.get(key)
        return default if value is None else value

    def require(self, key: str) -> Any:
        """Value of `key`. Raises UserError where it is missing."""
        value = self.raw.get(key)
        if value is None:
            raise UserError(f"{self.path}: field {key!r} is missing; it must hold a complete Hugging Face model config")
        return value

    def count(self, key: str, most: int = _MOST) -> int:
        """Value of `key`, a whole number of 1 to `most`. Raises UserError where it is missing or another value."""
        value = self.require(key)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
            raise self._unusable(key, value, f"a whole number of 1 to {most}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """Value of `key`, finite and above 0; `default` where it is missing. Raises UserError for another value."""
        return self._number(key, self.require(key) if default is None else self.get(key, default))

    def flag(self, key: str) -> bool:
        """Value of `key`, true or false; false where it is missing. Raises UserError where it is another value."""
        value = self.get(key, False)
        if value not in (True, False):
            raise self._unusable(key, value, "true or false")
        return bool(value)

    @property
    def layers(self) -> int:
        """Transformer layers."""
        return self.count("num_hidden_layers", _MOST_LAYERS)

    @property
    def rope(self) -> dict[str, Any]:
        """Rotary parameters, from ``rope_parameters`` (transformers 5) or ``rope_theta`` + ``rope_scaling`` (4).

        Raises UserError where a file has both, with another type of scaling: each release would take another one.
        """
        of_5, of_4 = self.get("rope_parameters", {}), self.get("rope_scaling", {})
        if isinstance(of_5, dict) and isinstance(of_4, dict) and of_5 and of_4 and _scaling(of_5) != _scaling(of_4):
            raise UserError(
                f"{self.path}: rope_parameters and rope_scaling disagree ({_scaling(of_5)} and {_scaling(of_4)}); keep "
                "the one that the model was trained with"
            )
        key = "rope_parameters" if of_5 else "rope_scaling"
        given = self.get(key, {})
        if not isinstance(given, dict):
            raise self._unusable(key, given, "an object")
        parameters = dict(given)
        parameters.setdefault("rope_theta", self.get("rope_theta", 10000.0))
        parameters.setdefault("rope_type", parameters.pop("type", "default"))
        self._number("rope_theta", parameters["rope_theta"])
        return parameters

    def rope_number(self, key: str) -> float:
        """One of the rotary parameters. Raises UserError where it is missing or no number above 0."""
        if (value := self.rope.get(key)) is None:
            raise UserError(f"{self.path}: rope type {self.rope['rope_type']!r} needs {key!r}, which is missing")
        return self._number(key, value)

    @property
    def head_dim(self) -> int:
        """Channels of one attention head."""
        if self.get("head_dim") is not None:
            return self.count("head_dim")
        hidden, heads = self.count("hidden_size"), self.count("num_attention_heads")
        if hidden < heads:
            raise self._unusable("hidden_size", hidden, f"at least one channel for each of the {heads} heads")
        return hidden // heads

    @property
    def key_value_heads(self) -> int:
        """Key-value heads, each of which serves a group of attention heads."""
        return self.count("num_attention_heads" if self.get("num_key_value_heads") is None else "num_key_value_heads")

    @property
    def tied(self) -> bool:
        """Whether the output layer shares the embedding's weight."""
        return self.flag("tie_word_embeddings")

    def _number(self, key: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise self._unusable(key, value, "a number above 0")
        return value

    def _unusable(self, key: str, value: Any, expected: str) -> UserError:
        shown = repr(value)
        return UserError(f"{self.path}: {key} is {shown if len(shown) < 60 else f'{shown[:60]}…'}; expected {expected}")


def _scaling(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Rotary parameters but for the base, which files of transformers 4 have elsewhere."""
    named = {"rope_type" if key == "type" else key: value for key, value in parameters.items() if key != "rope_theta"}
    return {"rope_type": "default"} | named


LAYER = {
    "input_layernorm": "input_layernorm",
    "self_attention.linear_proj": "self_attn.o_proj",
    "pre_mlp_layernorm": "post_attention_layernorm",
}
"""Megatron's -> Hugging Face's names of a layer's weights that are the same on both sides, the feed-forward's left
out."""


@dataclass(frozen=True)
class Family:
    """One architecture that can be imported, trained and exported: a GPT with RMSNorm, rotary positions and gated
    feed-forwards. The fields are what one family has and another does not."""

    model_type: str
    """As ``config.json`` names it."""
    nemo_config: str | None = None
    """Import path of NeMo's config class, ``package.module:Class``, which chooses the fused kernels; None: the family
    is trained with `trainer=core` alone."""
    layer: Mapping[str, str] = field(default_factory=lambda: LAYER)
    """Names of a layer's weights that are the same on both sides, as in `LAYER`."""
    qkv_bias: bool = False
    """Whether the query, key and value projections have biases."""
    qk_norm: bool = False
    """Whether queries and keys are normalized per head."""
    activation: str = "silu"
    """Activation of the feed-forward's gate, as ``config.json`` names it."""
    activation_key: str = "hidden_act"
    """Key of ``config.json`` that names the activation."""
    rope_types: tuple[str, ...] = ("default",)
    """Rotary scalings that are built exactly."""
    mixture: Callable[[HFConfig], Mixture | None] = lambda _config: None
    """Its mixture of experts, where it has one."""
    windowed: Callable[[HFConfig, int], Sequence[bool]] | None = None
    """Which of so many layers have the config's ``sliding_window``; None: the family reads no such key."""
    fields: Callable[[HFConfig], dict[str, Any]] = lambda _config: {}
    """Further fields of Megatron's config."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Values of keys that ``config.json`` may leave out, where they differ from other families'."""


def layers_by_type(config: HFConfig, otherwise: Sequence[bool]) -> list[bool]:
    """Which layers ``layer_types`` gives a window; `otherwise` where ``config.json`` does not have that key."""
    kinds = config.get("layer_types")
    if kinds is None:
        return list(otherwise)
    if not isinstance(kinds, list) or len(kinds) != config.layers:
        raise UserError(f"{config.path}: layer_types does not name each of the {config.layers} layers")
    return [kind == "sliding_attention" for kind in kinds]


def all_layers(_config: HFConfig, layers: int) -> list[bool]:
    """Windows of a family that has them in every layer."""
    return [True] * layers


def upper_layers(config: HFConfig, layers: int) -> list[bool]:
    """Qwen's windows: switched off, or on from a layer upwards."""
    if not config.flag("use_sliding_window"):
        return [False] * layers
    first = config.number("max_window_layers", 28) if config.get("max_window_layers") != 0 else 0
    return layers_by_type(config, [layer >= first for layer in range(layers)])


def experts_per_token(config: HFConfig, experts_key: str) -> int:
    """``num_experts_per_tok``. Raises UserError where it is more than there are experts."""
    return config.count("num_experts_per_tok", experts(config, experts_key))


def experts(config: HFConfig, key: str) -> int:
    """Experts of a layer. Raises UserError for a number that no policy has."""
    return config.count(key, _MOST_EXPERTS // config.layers)
