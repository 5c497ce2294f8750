"""Llama 2, 3, 3.1, 3.2 and 3.3."""

from nemo_sspo.megatron.models.family import Family

FAMILY = Family(
    "llama",
    nemo_config="nemo.collections.llm.gpt.model.llama:LlamaConfig",
    rope_types=("default", "llama3"),
)
