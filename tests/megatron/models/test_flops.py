from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("megatron.core")

import torch
from megatron.core.transformer.transformer_config import TransformerConfig

from nemo_sspo.megatron.models.flops import ModelFlops, StepWork, peak_flops, peak_flops_here

VOCAB = 10


def config(**changes: Any) -> TransformerConfig:
    """2 layers of width 8: 4 query heads and 2 key-value heads of 3 channels, a gated feed-forward of 5."""
    shape: dict[str, Any] = {
        "num_layers": 2,
        "hidden_size": 8,
        "num_attention_heads": 4,
        "num_query_groups": 2,
        "kv_channels": 3,
        "ffn_hidden_size": 5,
        "gated_linear_unit": True,
        "add_bias_linear": False,
    }
    return TransformerConfig(**shape | changes)


def test_flops_of_a_sequence_by_hand() -> None:
    flops = ModelFlops.of(config(), VOCAB)
    # A layer: qkv 8 x (12 + 6 + 6), output 12 x 8, gate and up 8 x 10, down 5 x 8; 408 weights.
    assert flops.per_token == 2 * 2 * (192 + 96 + 80 + 40)
    # 12 channels of all heads: a multiply-add each for the score and for the sum of values.
    assert flops.per_visible_key == 2 * 2 * 12
    # Prompt of 3 and response of 2: queries see 1 + 2 + 3 + 4 + 5 keys, the head scores 2 tokens over 10 rows of 8.
    forward = 5 * 1632 + 15 * 96 + 2 * 160
    assert flops.of_sequence(3, 2) == 3 * forward == 29760


def test_of_a_mixture_the_experts_count_that_a_token_takes() -> None:
    """And the router; the first of the two layers is dense. The same experts, one of them always taken, are dense."""
    mixture = {"num_moe_experts": 4, "moe_router_topk": 2, "moe_ffn_hidden_size": 3, "moe_layer_freq": [0, 1]}
    flops = ModelFlops.of(config(**mixture), VOCAB)
    assert flops.per_token == 2 * (2 * 288 + 120 + 2 * (3 * 8 * 3) + 8 * 4)


def test_six_flops_per_weight_and_token_where_attention_and_head_are_small() -> None:
    large = ModelFlops.of(config(hidden_size=4096, ffn_hidden_size=16384), VOCAB)
    weights = 2 * (4096 * 36 + 3 * 4096 * 16384)
    assert large.of_sequence(9, 1) == pytest.approx(6 * weights * 10, rel=1e-3)


def test_a_window_and_frozen_weights_take_away_what_is_not_computed() -> None:
    whole = ModelFlops.of(config(), VOCAB)
    # A window of 3 tokens (Megatron counts those before the query): 1 + 2 + 3 + 3 + 3 keys in place of 15.
    windowed = ModelFlops.of(config(window_size=(2, 0)), VOCAB)
    assert whole.of_sequence(3, 2) - windowed.of_sequence(3, 2) == 3 * 3 * 96
    assert windowed.of_sequence(1, 1) == whole.of_sequence(1, 1)
    # Gemma 2 has it in every second layer.
    alternating = ModelFlops.of(config(window_size=(2, 0), window_attn_skip_freq=[1, 0]), VOCAB)
    assert whole.of_sequence(3, 2) - alternating.of_sequence(3, 2) == 3 * 3 * 48
    frozen = ModelFlops.of(config(), VOCAB, frozen=True)
    assert frozen == replace(whole, weight_passes=2)
    assert whole.of_sequence(3, 2) - frozen.of_sequence(3, 2) == 5 * 1632 + 2 * 160


def test_a_step_is_the_sum_of_its_responses() -> None:
    flops = ModelFlops.of(config(), VOCAB)
    expected = StepWork(15, 2 * 29760.0 + flops.of_sequence(1, 2) + flops.of_sequence(1, 1))
    assert flops.of_step([(3, 2, 2), (1, 2, 1)], shares_prompts=False) == expected


@pytest.mark.parametrize("window", [None, 2])
def test_a_shared_prompt_is_counted_as_it_is_computed(window: int | None) -> None:
    """Its last token twice, all others once; the keys that each token of the row sees, one by one."""
    flops = ModelFlops.of(config(window_size=None if window is None else (window, 0)), VOCAB)
    prompt, chosen, rejected = 5, 4, 2
    positions = [*range(prompt - 1), *range(prompt - 1, prompt + chosen), *range(prompt - 1, prompt + rejected)]
    keys = sum(position + 1 if window is None else min(position, window) + 1 for position in positions)
    forward = len(positions) * 1632 + keys * 96 + (chosen + rejected) * 160
    assert flops.of_step([(prompt, chosen, rejected)], shares_prompts=True) == StepWork(12, 3.0 * forward)
    # A prompt of one token has nothing to share.
    alone = flops.of_step([(1, 4, 2)], shares_prompts=False)
    assert flops.of_step([(1, 4, 2)], shares_prompts=True) == alone


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA GH200 480GB", 989e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA RTX A1000", None),
        ("NVIDIA H20", None),
    ],
)
def test_peaks_by_name(name: str, peak: float | None) -> None:
    assert peak_flops(name) == peak


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu_is_no_peak() -> None:
    assert peak_flops_here() is None
