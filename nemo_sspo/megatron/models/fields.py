"""From a Hugging Face config to the fields of Megatron's that define the model; what cannot be exact is refused.

NeMo's own importers are not used for this: they need Transformer Engine, and some lose what makes a round trip exact
(the Qwen2 one unties the embeddings, the Qwen3 one fixes the head size at 128, the Mistral one takes the sliding window
for the sequence length).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nemo_sspo.errors import UserError
from nemo_sspo.megatron.models.families import family_of
from nemo_sspo.megatron.models.family import Family, HFConfig
from nemo_sspo.megatron.models.feed_forward import Mixture
from nemo_sspo.megatron.models.layout import padded_vocab_size

_LANGUAGE_MODEL = "ForCausalLM"
"""How the names of classes end that predict a next token; a classifier's end otherwise."""


def _refusals(config: HFConfig, family: Family) -> Iterator[str]:
    """Another kind of model, and features whose numbers would differ from Hugging Face's."""
    architectures = config.get("architectures", [_LANGUAGE_MODEL])
    if not isinstance(architectures, list) or not any(str(name).endswith(_LANGUAGE_MODEL) for name in architectures):
        yield f"{config.path}: architectures {architectures!r} names no language model (...{_LANGUAGE_MODEL})"
    if (activation := config.get(family.activation_key, family.activation)) != family.activation:
        yield (
            f"{config.path}: {family.activation_key} {activation!r} is not supported; supported: {family.activation!r}"
        )
    if (heads := config.count("num_attention_heads")) % (groups := config.key_value_heads):
        yield f"{config.path}: num_attention_heads={heads} is not a multiple of num_key_value_heads={groups}"
    if config.flag("mlp_bias"):
        yield f"{config.path}: mlp_bias is not supported"
    if not family.qkv_bias and config.flag("attention_bias"):
        yield f"{config.path}: attention_bias is not supported for model_type {family.model_type!r}"
    if (rope_type := config.rope["rope_type"]) not in family.rope_types:
        yield (
            f"{config.path}: rope type {rope_type!r} is not supported for model_type {family.model_type!r}; supported: "
            f"{', '.join(map(repr, family.rope_types))}"
        )


def _mixture_refusals(config: HFConfig, mixture: Mixture | None) -> Iterator[str]:
    if mixture is not None and mixture.renormalized and mixture.experts_per_token == 1:
        yield (
            f"{config.path}: num_experts_per_tok=1 with weights that sum to 1 gives the router no gradient, which is "
            "not supported"
        )


def transformer_fields(config: HFConfig) -> dict[str, Any]:
    """The shape and the numbers of a policy's layers as fields of Megatron's config, the activation function left out.

    Raises UserError for an unknown family, a missing field, and features whose numbers would not be Hugging Face's.
    """
    family = family_of(config)
    mixture = family.mixture(config)
    for problem in (*_refusals(config, family), *_mixture_refusals(config, mixture)):
        raise UserError(problem)
    return {
        "num_layers": config.layers,
        "hidden_size": config.count("hidden_size"),
        "ffn_hidden_size": config.count("intermediate_size"),
        "num_attention_heads": config.count("num_attention_heads"),
        "num_query_groups": config.key_value_heads,
        "kv_channels": config.head_dim,
        "init_method_std": config.number("initializer_range", 0.02),
        "normalization": "RMSNorm",
        "layernorm_epsilon": config.number("rms_norm_eps", 1e-6),
        "gated_linear_unit": True,
        "add_bias_linear": False,
        "add_qkv_bias": family.qkv_bias,
        "qk_layernorm": family.qk_norm,
        "hidden_dropout": 0.0,
        "attention_dropout": 0.0,
        **_windows(config, family),
        **({} if mixture is None else mixture.fields()),
        **family.fields(config),
    }


def model_fields(config: HFConfig) -> dict[str, Any]:
    """What a policy has around its layers, by the names that Megatron's model and NeMo's config share."""
    return {
        "vocab_size": padded_vocab_size(config.count("vocab_size")),
        "share_embeddings_and_output_weights": config.tied,
        "position_embedding_type": "rope",
        "rotary_base": config.rope["rope_theta"],
    }


def rope_scaling(config: HFConfig) -> dict[str, Any]:
    """The numbers of Llama 3.1's rotary scaling, as `layers/rotary.py` and NeMo name them; none for other policies."""
    if config.rope["rope_type"] != "llama3":
        return {}
    return {
        "scale_factor": config.rope_number("factor"),
        "low_freq_factor": config.rope_number("low_freq_factor"),
        "high_freq_factor": config.rope_number("high_freq_factor"),
        "old_context_len": config.rope_number("original_max_position_embeddings"),
    }


def windowed_layers(config: HFConfig, family: Family) -> list[bool]:
    """Which layers have attention windows; empty where none has."""
    if family.windowed is None or config.get("sliding_window") is None:
        return []
    return list(family.windowed(config, config.layers))


def _windows(config: HFConfig, family: Family) -> dict[str, Any]:
    """Attention windows: the query and the tokens before it, in some of the layers or in none."""
    windowed = windowed_layers(config, family)
    if not any(windowed):
        return {"window_size": None, "cp_comm_type": None}  # otherwise NeMo's classes have windows of their own
    window = config.count("sliding_window")
    return {"window_size": (window - 1, 0), "window_attn_skip_freq": [int(is_) for is_ in windowed]}
