"""Mistral; every layer has the window, where there is one."""

from nemo_sspo.megatron.models.family import Family, HFConfig


def _all_layers(_config: HFConfig, layers: int) -> list[bool]:
    return [True] * layers


FAMILY = Family(
    "mistral",
    nemo_config="nemo.collections.llm.gpt.model.mistral:MistralConfig7B",
    windowed=_all_layers,
    defaults={"sliding_window": 4096},
)
