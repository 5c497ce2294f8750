"""What a training step computes, in model FLOPs, and what share of the GPUs' peak that is (MFU).

A multiply-add counts as two FLOPs, and only products that the model itself needs are counted: no padding, no
recomputed activations, no second pass over the head's logits, no norms or softmax. Attention counts the keys that a
query may see, and the head the response tokens, because nothing else is computed there. Where a pair's responses share
their prompt it is counted once, as it is computed: sharing reduces the seconds and does not raise tokens per second or
the share of the peak.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.core.transformer.utils import is_layer_window_attention

# Dense bf16 FLOP/s of one GPU by a word of its name, the more specific names first (NVIDIA's data sheets).
_PEAK_BF16 = {
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H200 NVL": 835e12,
    "H100": 989e12,
    "H200": 989e12,
    "GH200": 989e12,
    "A100": 312e12,
}


@dataclass(frozen=True)
class StepWork:
    """One optimizer step over the global batch."""

    tokens: int
    """Of prompts and responses as they are computed, without padding."""
    flops: float
    """Forward and backward."""


@dataclass(frozen=True)
class ModelFlops:
    """FLOPs of a GPT's forward pass, and how many such passes a training step costs. Of a mixture of experts those
    count that a token takes, and the router."""

    per_token: int
    """Products with the weights of all layers."""
    per_visible_key: int
    """Of a query with one key that it sees, over all heads of a layer: the score, and the value's part of the sum."""
    per_response_token: int
    """Product with the output weight."""
    layers: int
    windowed_layers: int
    """Layers of which a query sees the last `window` keys only."""
    window: int | None
    """Keys that a query sees at most there, itself included."""
    weight_passes: int
    """Forward, the inputs' gradient, and (unless the weights are frozen) the weights' gradient."""

    @classmethod
    def of(cls, config: TransformerConfig, vocab_size: int, *, frozen: bool = False) -> ModelFlops:
        """`vocab_size` is without padding; `frozen` weights get no gradient (adapters on top are not counted)."""
        inner = config.num_attention_heads * config.kv_channels
        attention = config.hidden_size * (2 * inner + 2 * config.num_query_groups * config.kv_channels)
        windowed = [
            is_layer_window_attention(config.window_size, config.window_attn_skip_freq, layer)
            for layer in range(1, config.num_layers + 1)
        ]
        return cls(
            per_token=2 * (config.num_layers * attention + _feed_forward_weights(config)),
            per_visible_key=4 * inner,
            per_response_token=2 * config.hidden_size * vocab_size,
            layers=config.num_layers,
            windowed_layers=sum(windowed),
            window=None if config.window_size is None else config.window_size[0] + 1,
            weight_passes=2 if frozen else 3,
        )

    def of_sequence(self, prompt: int, response: int) -> int:
        """FLOPs of training on one response of `response` tokens to a prompt of `prompt` tokens."""
        tokens = prompt + response
        weights = self.per_token * tokens + self.per_response_token * response
        # The two products of attention have two inputs each, and both get a gradient.
        near, all_ = _visible_keys(tokens, self.window), _visible_keys(tokens, None)
        keys = self.windowed_layers * near + (self.layers - self.windowed_layers) * all_
        return self.weight_passes * weights + 3 * self.per_visible_key * keys

    def of_step(self, pairs: Iterable[tuple[int, int, int]], *, shares_prompts: bool) -> StepWork:
        """The work of a global batch, given each pair's tokens of prompt, chosen and rejected response.

        A shared prompt is computed once, except its last token: each response begins with it
        (`layers/prompt_sharing.py`).
        """
        tokens = flops = 0
        for prompt, chosen, rejected in pairs:
            tokens += 2 * prompt + chosen + rejected
            flops += self.of_sequence(prompt, chosen) + self.of_sequence(prompt, rejected)
            if shares_prompts:
                tokens -= prompt - 1
                flops -= self.of_sequence(prompt - 1, 0)
        return StepWork(tokens, float(flops))


def _feed_forward_weights(config: TransformerConfig) -> int:
    """With which a token meets, over all layers."""
    matrices = 3 if config.gated_linear_unit else 2
    dense = config.hidden_size * config.ffn_hidden_size * matrices
    if config.num_moe_experts is None:
        return config.num_layers * dense
    taken = config.hidden_size * config.moe_ffn_hidden_size * matrices * config.moe_router_topk
    mixed = sum(config.moe_layer_freq)
    return mixed * (taken + config.hidden_size * config.num_moe_experts) + (config.num_layers - mixed) * dense


def _visible_keys(tokens: int, window: int | None) -> int:
    """Sum over the queries of a sequence of the keys that each sees: causal, and no further back than the window."""
    reach = tokens if window is None else min(tokens, window)
    return reach * (reach + 1) // 2 + (tokens - reach) * reach


def peak_flops(gpu_name: str) -> float | None:
    """Dense bf16 FLOP/s of a GPU by its CUDA name; None for one that is not in the table."""
    words = (name for name in _PEAK_BF16 if re.search(rf"\b{name}\b", gpu_name))
    return next((_PEAK_BF16[name] for name in words), None)


def peak_flops_here() -> float | None:
    """Dense bf16 FLOP/s of this rank's GPU, also where the layers run in another precision; None without a GPU."""
    return peak_flops(torch.cuda.get_device_name()) if torch.cuda.is_available() else None
