"""What a model family is: how its Hugging Face ``config.json`` is read, and what its layers have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nemo_sspo.errors import UserError


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

    @property
    def rope(self) -> dict[str, Any]:
        """Rotary parameters, from ``rope_parameters`` (transformers 5) or ``rope_theta`` + ``rope_scaling`` (4)."""
        parameters = dict(self.get("rope_parameters", {}) or self.get("rope_scaling", {}))
        parameters.setdefault("rope_theta", self.get("rope_theta", 10000.0))
        parameters.setdefault("rope_type", parameters.pop("type", "default"))
        return parameters

    @property
    def head_dim(self) -> int:
        """Channels of one attention head."""
        return self.get("head_dim", self.require("hidden_size") // self.require("num_attention_heads"))

    @property
    def key_value_heads(self) -> int:
        """Key-value heads, each of which serves a group of attention heads."""
        return self.get("num_key_value_heads", self.require("num_attention_heads"))

    @property
    def tied(self) -> bool:
        """Whether the output layer shares the embedding's weight."""
        return bool(self.get("tie_word_embeddings", False))


LAYER = {
    "input_layernorm": "input_layernorm",
    "self_attention.linear_proj": "self_attn.o_proj",
    "pre_mlp_layernorm": "post_attention_layernorm",
    "mlp.linear_fc2": "mlp.down_proj",
}
"""Megatron's -> Hugging Face's names of a layer's weights that are the same on both sides."""


@dataclass(frozen=True)
class Family:
    """One architecture that can be imported, trained and exported: a dense GPT with RMSNorm, rotary positions and a
    gated feed-forward. The fields are what one family has and another does not."""

    model_type: str
    """As ``config.json`` names it."""
    nemo_config: str
    """Import path of NeMo's config class, ``package.module:Class``. It chooses the fused kernels."""
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
    windowed: Callable[[HFConfig, int], Sequence[bool]] | None = None
    """Which of so many layers have the config's ``sliding_window``; None: the family reads no such key."""
    fields: Callable[[HFConfig], dict[str, Any]] = lambda _config: {}
    """Further fields of Megatron's config."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Values of keys that ``config.json`` may leave out, where they differ from other families'."""


def layers_by_type(config: HFConfig, otherwise: Sequence[bool]) -> list[bool]:
    """Which layers ``layer_types`` gives a window; `otherwise` where ``config.json`` does not have that key."""
    kinds = config.get("layer_types")
    return list(otherwise) if kinds is None else [kind == "sliding_attention" for kind in kinds]


def upper_layers(config: HFConfig, layers: int) -> list[bool]:
    """Qwen's windows: switched off, or on from a layer upwards."""
    if not config.get("use_sliding_window", False):
        return [False] * layers
    first = config.get("max_window_layers", 28)
    return layers_by_type(config, [layer >= first for layer in range(layers)])
