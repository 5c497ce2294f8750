"""The feed-forwards of a policy's layers: one each, or a mixture of experts of which every token takes a few."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class FeedForwardNames:
    """Hugging Face's names of a layer's feed-forward and of its matrices."""

    block: str = "mlp"
    gate: str = "gate_proj"
    up: str = "up_proj"
    down: str = "down_proj"


@dataclass(frozen=True)
class Mixture:
    """The experts of a policy. A token's output is the sum of its experts', weighted by what the router gives them."""

    experts: int
    """In each layer that has them."""
    experts_key: str
    """Key of ``config.json`` that gives their number."""
    experts_per_token: int
    intermediate_size: int
    """Of one expert."""
    intermediate_key: str
    """Key of ``config.json`` that gives it."""
    renormalized: bool
    """Whether a token's weights sum to 1: the softmax is over its experts alone, and not over all."""
    layers: tuple[bool, ...]
    """Which layers have experts; the others are dense."""
    names: FeedForwardNames

    def fields(self) -> dict[str, Any]:
        """As fields of Megatron's config: nothing is dropped, and the router computes in fp32."""
        return {
            "num_moe_experts": self.experts,
            "moe_router_topk": self.experts_per_token,
            "moe_ffn_hidden_size": self.intermediate_size,
            "moe_layer_freq": [int(has) for has in self.layers],
            "moe_router_pre_softmax": not self.renormalized,
            "moe_router_dtype": "fp32",
            "moe_router_load_balancing_type": "none",
            "moe_token_dispatcher_type": "alltoall",
        }


@dataclass(frozen=True)
class FeedForward:
    """The matrices of a dense layer, or of one expert, by their names on both sides."""

    ours: str
    """Megatron's module: its ``linear_fc1`` is gate above up, its ``linear_fc2`` down."""
    gate: str
    up: str
    down: str
    size: tuple[str, int]
    """What config.json calls its inner channels, and their number."""


def feed_forwards(layers: int, dense_size: int, mixture: Mixture | None) -> Iterator[FeedForward]:
    """Those of all layers, in their order."""
    for layer in range(layers):
        ours, theirs = f"decoder.layers.{layer}.mlp", f"model.layers.{layer}"
        if mixture is None or not mixture.layers[layer]:
            names = FeedForwardNames()
            yield _named(ours, f"{theirs}.{names.block}", names, ("intermediate_size", dense_size))
            continue
        size = (mixture.intermediate_key, mixture.intermediate_size)
        for expert in range(mixture.experts):
            block = f"{theirs}.{mixture.names.block}.experts.{expert}"
            yield _named(f"{ours}.experts.local_experts.{expert}", block, mixture.names, size)


def routers(mixture: Mixture | None) -> Iterator[tuple[str, str]]:
    """(Megatron name, Hugging Face name) of the matrices that choose the experts."""
    if mixture is not None:
        for layer in (layer for layer, has_experts in enumerate(mixture.layers) if has_experts):
            block = f"model.layers.{layer}.{mixture.names.block}"
            yield f"decoder.layers.{layer}.mlp.router.weight", f"{block}.gate.weight"


def _named(ours: str, block: str, names: FeedForwardNames, size: tuple[str, int]) -> FeedForward:
    gate, up, down = (f"{block}.{name}.weight" for name in (names.gate, names.up, names.down))
    return FeedForward(ours, gate, up, down, size)
