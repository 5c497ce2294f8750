"""What vLLM refuses of a policy, from its config.json and the settings. Without vLLM."""

from collections.abc import Iterator

from nemo_sspo.config.engines import VllmEngine
from nemo_sspo.megatron.models.family import HFConfig

HEADS_ON_A_PROCESSOR = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
"""Channels of a head that its attention for processors takes. On a GPU one of its kernels takes any."""


def engine_problems(config: HFConfig, settings: VllmEngine, *, on_cpu: bool) -> Iterator[str]:
    """Why the engine would not start. Raises UserError where ``config.json`` lacks a number."""
    if (heads := config.count("num_attention_heads")) % settings.tensor_parallel:
        yield (
            f"{config.path}: num_attention_heads={heads} does not divide over "
            f"engine.tensor_parallel={settings.tensor_parallel}; choose a divisor"
        )
    if on_cpu and config.head_dim not in HEADS_ON_A_PROCESSOR:
        yield (
            f"{config.path}: heads of {config.head_dim} channels, which vLLM does not take on a processor; it takes "
            f"{', '.join(map(str, HEADS_ON_A_PROCESSOR))}"
        )
