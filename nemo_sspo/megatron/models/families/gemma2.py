"""Gemma 2 (arXiv:2408.00118); `megatron/layers/gemma2.py` has the parts that Megatron's GPT lacks."""

from typing import Any

from nemo_sspo.megatron.models.family import Family, HFConfig, layers_by_type


def _every_second_layer(config: HFConfig, layers: int) -> list[bool]:
    """The first layer has the window, the second one does not, and so on."""
    return layers_by_type(config, [layer % 2 == 0 for layer in range(layers)])


def _fields(config: HFConfig) -> dict[str, Any]:
    return {
        "layernorm_zero_centered_gamma": True,
        "sandwich_norms": True,
        "softmax_scale": config.number("query_pre_attn_scalar") ** -0.5,
        "attn_logit_softcapping": _softcap(config, "attn_logit_softcapping"),
        "final_logit_softcapping": _softcap(config, "final_logit_softcapping"),
    }


def _softcap(config: HFConfig, key: str) -> float | None:
    return None if config.get(key) is None else config.number(key)


FAMILY = Family(
    "gemma2",
    nemo_config="nemo_sspo.megatron.nemo.policy_config:Gemma2PolicyConfig",
    layer={
        "input_layernorm": "input_layernorm",
        "self_attention.linear_proj": "self_attn.o_proj",
        "self_attn_bda.norm": "post_attention_layernorm",
        "pre_mlp_layernorm": "pre_feedforward_layernorm",
        "mlp_bda.norm": "post_feedforward_layernorm",
    },
    activation="gelu_pytorch_tanh",
    # Not "hidden_act": Gemma's first release had the wrong function there, and nothing reads it.
    activation_key="hidden_activation",
    windowed=_every_second_layer,
    fields=_fields,
    defaults={
        "tie_word_embeddings": True,
        "head_dim": 256,
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
    },
)
