"""Mixtral; every layer is a mixture of experts, and has the window, where there is one."""

from nemo_sspo.megatron.models.family import Family, HFConfig, all_layers, experts, experts_per_token
from nemo_sspo.megatron.models.feed_forward import FeedForwardNames, Mixture


def _mixture(config: HFConfig) -> Mixture:
    return Mixture(
        experts=experts(config, "num_local_experts"),
        experts_key="num_local_experts",
        experts_per_token=experts_per_token(config, "num_local_experts"),
        intermediate_size=config.count("intermediate_size"),
        intermediate_key="intermediate_size",
        renormalized=True,
        layers=(True,) * config.layers,
        names=FeedForwardNames("block_sparse_moe", "w1", "w3", "w2"),
    )


FAMILY = Family(
    "mixtral",
    windowed=all_layers,
    mixture=_mixture,
    defaults={"num_local_experts": 8, "num_experts_per_tok": 2},
)
