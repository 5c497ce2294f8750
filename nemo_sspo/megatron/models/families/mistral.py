"""Mistral; every layer has the window, where there is one."""

from nemo_sspo.megatron.models.family import Family, all_layers

FAMILY = Family(
    "mistral",
    nemo_config="nemo.collections.llm.gpt.model.mistral:MistralConfig7B",
    windowed=all_layers,
    defaults={"sliding_window": 4096},
)
