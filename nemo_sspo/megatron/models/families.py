"""Model families: how a Hugging Face ``config.json`` becomes a NeMo GPT config, and which tensors a layer has.

One table, keyed on ``model_type``, serves import, training and export. NeMo's own importers are not used for this:
they want Transformer Engine, and some lose what makes a round trip exact (the Qwen2 one unties the embeddings, the
Qwen3 one fixes the head size at 128, the Mistral one takes the sliding window for the sequence length).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from megatron.core.models.gpt import GPTModel
from nemo.collections.llm.gpt.model.base import GPTConfig
from nemo.collections.llm.gpt.model.gemma2 import Gemma2Config
from nemo.collections.llm.gpt.model.llama import Llama31Config, LlamaConfig
from nemo.collections.llm.gpt.model.mistral import MistralConfig7B
from nemo.collections.llm.gpt.model.qwen2 import Qwen2Config
from nemo.collections.llm.gpt.model.qwen3 import Qwen3Config
from typing_extensions import override

from nemo_sspo.errors import UserError
from nemo_sspo.megatron.layers.gemma2 import finish_gemma2, gelu_tanh

# Embedding rows are padded to a multiple of this whatever the layout, so that one checkpoint fits every TP size that
# divides it. The padded rows are zero, never trained, and cut off at export.
VOCAB_MULTIPLE = 128


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


@dataclass(frozen=True)
class Family:
    """One architecture that can be imported, trained and exported."""

    model_type: str
    config: Callable[..., GPTConfig]
    """NeMo config class of the family."""
    qkv_bias: bool = False
    """Whether the query, key and value projections have biases."""
    qk_norm: bool = False
    """Whether queries and keys are normalized per head."""
    sandwich_norms: bool = False
    """Whether the outputs of attention and feed-forward are normalized too."""
    activation: str = "silu"
    """Of the feed-forward's gate, as ``config.json`` names it."""
    windowed: Callable[[HFConfig, int], Sequence[bool]] | None = None
    """Which of so many layers have the config's ``sliding_window``; None: the family reads no such key."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """What keys mean that ``config.json`` leaves out, where it is not what they mean elsewhere."""


@dataclass
class Gemma2PolicyConfig(Gemma2Config):
    """NeMo's config of Gemma 2, building the model that Hugging Face has; see `gemma2.py`."""

    activation_func: Callable = gelu_tanh
    sandwich_norms: bool = True

    @override
    def configure_model(self, *args: Any, **kwargs: Any) -> GPTModel:
        return finish_gemma2(super().configure_model(*args, **kwargs))


def _all_layers(_config: HFConfig, layers: int) -> list[bool]:
    return [True] * layers


def _layers_by_type(config: HFConfig, otherwise: Sequence[bool]) -> list[bool]:
    kinds = config.get("layer_types")
    return list(otherwise) if kinds is None else [kind == "sliding_attention" for kind in kinds]


def _upper_layers(config: HFConfig, layers: int) -> list[bool]:
    """Qwen's: configs carry a window that is switched off, or on from a layer upwards."""
    if not config.get("use_sliding_window", False):
        return [False] * layers
    first = config.get("max_window_layers", 28)
    return _layers_by_type(config, [layer >= first for layer in range(layers)])


def _every_second_layer(config: HFConfig, layers: int) -> list[bool]:
    """Gemma 2's: the first layer has the window, every second one does not."""
    return _layers_by_type(config, [layer % 2 == 0 for layer in range(layers)])


_GEMMA2_DEFAULTS = {
    "tie_word_embeddings": True,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
}


FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (
        Family("llama", LlamaConfig),
        Family("mistral", MistralConfig7B, windowed=_all_layers, defaults={"sliding_window": 4096}),
        Family("qwen2", Qwen2Config, qkv_bias=True, windowed=_upper_layers, defaults={"sliding_window": 4096}),
        Family("qwen3", Qwen3Config, qk_norm=True, windowed=_upper_layers, defaults={"sliding_window": 4096}),
        Family(
            "gemma2",
            Gemma2PolicyConfig,
            sandwich_norms=True,
            activation="gelu_pytorch_tanh",
            windowed=_every_second_layer,
            defaults=_GEMMA2_DEFAULTS,
        ),
    )
}


def read_hf_config(policy_dir: Path) -> HFConfig:
    """Read ``config.json`` of a Hugging Face directory. Raises UserError where it is missing or malformed."""
    path = policy_dir / "config.json"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{policy_dir}: no config.json; give a Hugging Face model directory or hub id") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(raw, dict):
        raise UserError(f"{path}: expected a JSON object")
    family = FAMILIES.get(raw.get("model_type", ""))
    return HFConfig({**family.defaults, **raw} if family else raw, path)


def family_of(config: HFConfig) -> Family:
    """The family that ``model_type`` names. Raises UserError that lists the supported ones."""
    model_type = config.get("model_type", "")
    if model_type not in FAMILIES:
        raise UserError(
            f"{config.path}: model_type {model_type!r} is not supported; supported: {', '.join(sorted(FAMILIES))}"
        )
    return FAMILIES[model_type]


def padded_vocab_size(vocab_size: int) -> int:
    """Embedding rows in the checkpoint: the vocabulary rounded up to a multiple of `VOCAB_MULTIPLE`."""
    return -(-vocab_size // VOCAB_MULTIPLE) * VOCAB_MULTIPLE


def tied(config: HFConfig) -> bool:
    """Whether the output layer shares the embedding's weight."""
    return bool(config.get("tie_word_embeddings", False))


def _refuse_what_cannot_be_exact(config: HFConfig, family: Family) -> None:
    # Gemma's ``hidden_act`` is read by nobody: its first release had the wrong function there.
    key = "hidden_activation" if "hidden_activation" in family.defaults else "hidden_act"
    if (activation := config.get(key, family.activation)) != family.activation:
        raise UserError(f"{config.path}: {key} {activation!r} is not supported; supported: {family.activation!r}")
    if config.get("mlp_bias", False):
        raise UserError(f"{config.path}: mlp_bias is not supported")
    if not family.qkv_bias and config.get("attention_bias", False):
        raise UserError(f"{config.path}: attention_bias is not supported for model_type {family.model_type!r}")
    rope_type = config.rope["rope_type"]
    if rope_type != "default" and not (rope_type == "llama3" and family.model_type == "llama"):
        raise UserError(
            f"{config.path}: rope type {rope_type!r} is not supported for model_type {family.model_type!r}"
            " (supported: 'default', and 'llama3' for llama)"
        )


def _window_fields(config: HFConfig, family: Family) -> dict[str, Any]:
    """Attention windows: the query and the tokens before it, in some of the layers or in none."""
    layers = config.require("num_hidden_layers")
    windowed = [] if family.windowed is None else list(family.windowed(config, layers))
    window = config.get("sliding_window")
    if window is None or not any(windowed):
        return {"window_size": None, "cp_comm_type": None}  # NeMo's classes have windows of their own otherwise
    if len(windowed) != layers:
        raise UserError(f"{config.path}: layer_types names {len(windowed)} layers, num_hidden_layers {layers}")
    return {"window_size": (window - 1, 0), "window_attn_skip_freq": [int(is_) for is_ in windowed]}


def _gemma2_fields(config: HFConfig) -> dict[str, Any]:
    return {
        "query_pre_attn_scalar": config.require("query_pre_attn_scalar"),
        "softmax_scale": config.require("query_pre_attn_scalar") ** -0.5,
        "attn_logit_softcapping": config.get("attn_logit_softcapping"),
        "final_logit_softcapping": config.get("final_logit_softcapping"),
    }


def nemo_config(config: HFConfig, **settings: Any) -> GPTConfig:
    """NeMo config with the shape of a Hugging Face model; `settings` are further fields (layer spec, precision).

    Raises UserError for an unknown family and for features whose numbers would differ from Hugging Face's.
    """
    family = family_of(config)
    _refuse_what_cannot_be_exact(config, family)
    rope = config.rope
    extra: dict[str, Any] = {}
    build = family.config
    if rope["rope_type"] == "llama3":
        build = Llama31Config
        extra = {
            "scale_factor": rope["factor"],
            "low_freq_factor": rope["low_freq_factor"],
            "high_freq_factor": rope["high_freq_factor"],
            "old_context_len": rope["original_max_position_embeddings"],
        }
    extra |= _window_fields(config, family)
    if family.model_type == "gemma2":
        extra |= _gemma2_fields(config)
    heads = config.require("num_attention_heads")
    return build(
        num_layers=config.require("num_hidden_layers"),
        hidden_size=config.require("hidden_size"),
        ffn_hidden_size=config.require("intermediate_size"),
        num_attention_heads=heads,
        num_query_groups=config.get("num_key_value_heads", heads),
        kv_channels=config.head_dim,
        init_method_std=config.get("initializer_range", 0.02),
        layernorm_epsilon=config.get("rms_norm_eps", 1e-6),
        seq_length=config.require("max_position_embeddings"),
        rotary_base=rope["rope_theta"],
        share_embeddings_and_output_weights=tied(config),
        vocab_size=padded_vocab_size(config.require("vocab_size")),
        make_vocab_size_divisible_by=VOCAB_MULTIPLE,
        qk_layernorm=family.qk_norm,
        add_qkv_bias=family.qkv_bias,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        **extra,
        **settings,
    )
