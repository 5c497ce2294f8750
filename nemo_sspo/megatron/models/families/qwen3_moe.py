"""Qwen3's mixtures of experts."""

from collections.abc import Sequence

from nemo_sspo.errors import UserError
from nemo_sspo.megatron.models.family import Family, HFConfig, all_layers, experts, experts_per_token
from nemo_sspo.megatron.models.feed_forward import FeedForwardNames, Mixture


def _mixture(config: HFConfig) -> Mixture | None:
    dense, every = config.get("mlp_only_layers", []), config.count("decoder_sparse_step")
    if not isinstance(dense, list) or not all(type(layer) is int for layer in dense):
        raise UserError(f"{config.path}: mlp_only_layers is {dense!r}; expected a list of layers, counted from 0")
    layers = tuple(layer not in dense and (layer + 1) % every == 0 for layer in range(config.layers))
    if not any(layers):
        return None
    return Mixture(
        experts=experts(config, "num_experts"),
        experts_key="num_experts",
        experts_per_token=experts_per_token(config, "num_experts"),
        intermediate_size=config.count("moe_intermediate_size"),
        intermediate_key="moe_intermediate_size",
        renormalized=config.flag("norm_topk_prob"),
        layers=layers,
        names=FeedForwardNames(),
    )


def _windowed(config: HFConfig, layers: int) -> Sequence[bool]:
    return all_layers(config, layers) if config.flag("use_sliding_window") else [False] * layers


FAMILY = Family(
    "qwen3_moe",
    qk_norm=True,
    windowed=_windowed,
    mixture=_mixture,
    defaults={
        "decoder_sparse_step": 1,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 768,
        "sliding_window": 4096,
    },
)
