"""What the parity tests compare on: tiny models, their weights by name, and preference pairs."""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from nemo_sspo.megatron.batches.microbatch import PreferencePair
from tests.distributed.architectures import LLAMA, Architecture

LAYERS, HIDDEN, HEADS, GROUPS, FFN = 4, 32, 4, 2, 48
VOCAB = 61  # a prime: its padding to PADDED_VOCAB lies in the last tensor-parallel rank only
PADDED_VOCAB = 64
ROPE_BASE, NORM_EPS = 10_000.0, 1e-5
MODEL: dict[str, Any] = {
    "num_layers": LAYERS,
    "hidden_size": HIDDEN,
    "num_attention_heads": HEADS,
    "num_query_groups": GROUPS,
    "ffn_hidden_size": FFN,
    "layernorm_epsilon": NORM_EPS,
    "normalization": "RMSNorm",
    "activation_func": torch.nn.functional.silu,
    "gated_linear_unit": True,
    "add_bias_linear": False,
}
"""What the models are, as megatron-core's config names it."""
END = 2
ETA, REPULSION_WEIGHT = 30.0, 25.0  # the quickstart's eta; a weight with which both terms show in every gradient
PAIRS = 8
PADDED_ROW, PACKED_TOKENS_PER_PAIR = 24, 40  # fixed row lengths, enough for every pair below


@dataclass(frozen=True)
class Layout:
    """A parallel layout; the rest of the world is data parallel."""

    name: str
    tensor: int = 1
    sequence: bool = False
    pipeline: int = 1
    virtual: int | None = None
    context: int = 1
    data: int = 1
    expert: int = 1
    recompute: str | None = None
    overlap: bool = False
    """Gradients are reduced over the replicas while backward runs."""

    @property
    def expert_tensor(self) -> int:
        """Ranks that share one expert's matrices."""
        return 1 if self.expert > 1 else self.tensor

    @property
    def world_size(self) -> int:
        return self.tensor * self.pipeline * self.context * self.data


ONE_RANK = Layout("one rank")
LAYOUTS = (
    Layout("TP2", tensor=2),
    Layout("TP2 SP", tensor=2, sequence=True),
    Layout("PP2", pipeline=2),
    Layout("PP2 VPP2", pipeline=2, virtual=2),
    Layout("TP2 PP2", tensor=2, pipeline=2),
    Layout("TP2 PP2 SP", tensor=2, pipeline=2, sequence=True),
    Layout("CP2", context=2),
    Layout("CP2 TP2", context=2, tensor=2),
    Layout("CP2 TP2 SP", context=2, tensor=2, sequence=True),
    Layout("DP2", data=2),
    Layout("TP2 PP2 DP2", tensor=2, pipeline=2, data=2),
    Layout("TP2 SP, full recomputation", tensor=2, sequence=True, recompute="full"),
    Layout("CP2, selective recomputation", context=2, recompute="selective"),
    Layout("PP2 DP2, overlapped reduction", pipeline=2, data=2, overlap=True),
)
MIXTURE_LAYOUTS = (
    Layout("DP2", data=2),
    Layout("DP2 EP2", data=2, expert=2),
    Layout("TP2 SP", tensor=2, sequence=True),
    Layout("TP2 SP EP2", tensor=2, sequence=True, expert=2),
    Layout("TP2 SP DP2 EP4", tensor=2, sequence=True, data=2, expert=4),
    Layout("TP2 SP DP2 EP2", tensor=2, sequence=True, data=2, expert=2),
    Layout("CP2 EP2", context=2, expert=2),
    Layout("CP2 TP2 SP EP4", context=2, tensor=2, sequence=True, expert=4),
    Layout("PP2 DP2 EP2", pipeline=2, data=2, expert=2),
    Layout("PP2 VPP2 TP2 SP EP2", pipeline=2, virtual=2, tensor=2, sequence=True, expert=2),
    Layout("TP2 SP EP2, full recomputation", tensor=2, sequence=True, expert=2, recompute="full"),
    Layout("DP4 EP2, overlapped reduction", data=4, expert=2, overlap=True),
)
"""Of a mixture of experts, whose tensor-parallel layouts are all sequence-parallel."""
BY_NAME = {layout.name: layout for layout in (ONE_RANK, *MIXTURE_LAYOUTS, *LAYOUTS)}


def weights(*, tied: bool, architecture: Architecture = LLAMA) -> dict[str, Tensor]:
    """Full fp32 weights under Megatron's names; drawn per name, so that they do not depend on any layout."""
    shapes: dict[str, tuple[int, ...]] = {"embedding.word_embeddings.weight": (PADDED_VOCAB, HIDDEN)}
    for layer in range(LAYERS):
        prefix = f"decoder.layers.{layer}."
        shapes |= {
            prefix + "input_layernorm.weight": (HIDDEN,),
            prefix + "self_attention.linear_qkv.weight": ((HEADS + 2 * GROUPS) * architecture.head_size, HIDDEN),
            prefix + "self_attention.linear_proj.weight": (HIDDEN, HEADS * architecture.head_size),
            prefix + "pre_mlp_layernorm.weight": (HIDDEN,),
        }
        blocks = ["mlp"]
        if architecture.experts is not None:
            shapes[prefix + "mlp.router.weight"] = (architecture.experts, HIDDEN)
            blocks = [f"mlp.experts.local_experts.{expert}" for expert in range(architecture.experts)]
        for block in blocks:
            shapes |= {
                f"{prefix}{block}.linear_fc1.weight": (2 * FFN, HIDDEN),
                f"{prefix}{block}.linear_fc2.weight": (HIDDEN, FFN),
            }
        if architecture.sandwich_norms:
            shapes |= {prefix + "self_attn_bda.norm.weight": (HIDDEN,), prefix + "mlp_bda.norm.weight": (HIDDEN,)}
    shapes["decoder.final_layernorm.weight"] = (HIDDEN,)
    if not tied:
        shapes["output_layer.weight"] = (PADDED_VOCAB, HIDDEN)
    return {name: _draw(name, shape, 1.0 - architecture.norm_offset) for name, shape in shapes.items()}


def _draw(name: str, shape: tuple[int, ...], gain: float) -> Tensor:
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
    return gain + 0.1 * noise if "norm" in name else 0.15 * noise


def pairs(count: int = PAIRS) -> list[PreferencePair]:
    """Pairs of differing lengths. References are near the tiny model's own log-probs (about -log VOCAB per token)."""
    draw = random.Random(7)

    def ids(length: int) -> tuple[int, ...]:
        return tuple(draw.randrange(3, VOCAB) for _ in range(length))

    made = []
    for index in range(count):
        chosen, rejected = (*ids(draw.randrange(0, 9)), END), (*ids(draw.randrange(2, 11)), END)
        made.append(
            PreferencePair(
                pair_id=f"pair-{index}",
                prompt_ids=ids(draw.randrange(1, 8)),
                chosen_ids=chosen,
                rejected_ids=rejected,
                ref_chosen=-4.5 * len(chosen) + draw.uniform(-1, 1),
                ref_rejected=-4.5 * len(rejected) + draw.uniform(-1, 1),
                target_chosen=draw.uniform(0.5, 1.0),
                target_rejected=draw.uniform(0.0, 0.5),
                target_pair=draw.uniform(0.5, 1.0),
            )
        )
    return made


def identical_responses() -> list[PreferencePair]:
    """Pairs whose two responses are the same text: the repulsion has no direction to push in."""
    return [replace(pair, rejected_ids=pair.chosen_ids) for pair in pairs()]
