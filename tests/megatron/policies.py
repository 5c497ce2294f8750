"""A policy of every family, and of what its members differ in: the type and changes of `worlds.write_policy`."""

from __future__ import annotations

from typing import Any

import pytest

GEMMA2: dict[str, Any] = {
    "tie_word_embeddings": True,
    "sliding_window": 5,
    "query_pre_attn_scalar": 11,
    "attn_logit_softcapping": 3.0,
    "final_logit_softcapping": 2.0,
}
MIXTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "mixtral": ("mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "mixtral_window": ("mixtral", {"num_local_experts": 4, "num_experts_per_tok": 3, "sliding_window": 5}),
    # Experts of another size than the dense layers', which are the first and the fourth.
    "qwen3_moe": (
        "qwen3_moe",
        {
            "num_experts": 8,
            "num_experts_per_tok": 3,
            "moe_intermediate_size": 40,
            "norm_topk_prob": True,
            "mlp_only_layers": [0, 3],
        },
    ),
    "qwen3_moe_unnormalized": (
        "qwen3_moe",
        {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 40, "decoder_sparse_step": 2},
    ),
}
"""Mixtures of experts, which `core` alone trains."""
POLICIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama_3.1": (
        "llama",
        {
            "rope_theta": 500000.0,
            "max_position_embeddings": 512,
            "rope_scaling": {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            },
        },
    ),
    "llama_tied": ("llama", {"tie_word_embeddings": True}),
    "mistral": ("mistral", {"sliding_window": None}),
    "mistral_window": ("mistral", {"sliding_window": 5}),
    "qwen2": ("qwen2", {"head_dim": 16}),
    "qwen2_tied": ("qwen2", {"head_dim": 16, "tie_word_embeddings": True}),
    "qwen3": ("qwen3", {}),
    # Of 4 layers the upper two have the window.
    "qwen3_window": ("qwen3", {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 2}),
    # Caps that bite, a window shorter than the sequence, a scale of queries that is not the head size's.
    "gemma2": ("gemma2", GEMMA2),
    "gemma2_uncapped": ("gemma2", GEMMA2 | {"attn_logit_softcapping": None, "final_logit_softcapping": None}),
    **MIXTURES,
}


def skip_what_it_does_not_train(trainer: str, name: str) -> None:
    """Skip the test where a trainer binding refuses the policy; `test_refusals.py` has that it does."""
    if trainer == "nemo" and name in MIXTURES:
        pytest.skip("core alone trains a mixture of experts")
