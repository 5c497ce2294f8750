"""Qwen2 and Qwen2.5."""

from nemo_sspo.megatron.models.family import Family, upper_layers

FAMILY = Family(
    "qwen2",
    nemo_config="nemo.collections.llm.gpt.model.qwen2:Qwen2Config",
    qkv_bias=True,
    windowed=upper_layers,
    defaults={"sliding_window": 4096},
)
