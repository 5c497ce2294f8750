"""Qwen3's dense models."""

from nemo_sspo.megatron.models.family import Family, upper_layers

FAMILY = Family(
    "qwen3",
    nemo_config="nemo.collections.llm.gpt.model.qwen3:Qwen3Config",
    qk_norm=True,
    windowed=upper_layers,
    defaults={"sliding_window": 4096},
)
