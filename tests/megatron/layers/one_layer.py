"""One layer's attention of a small model, on one forked rank."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.tensor_parallel import model_parallel_cuda_manual_seed
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.transformer_config import TransformerConfig

from nemo_sspo.megatron.runtime.cpu_runtime import cpu_runtime
from nemo_sspo.megatron.runtime.forked_ranks import run_forked

SEQUENCE, ROWS, HEADS, GROUPS, SIZE = 10, 3, 4, 2, 8


def config(**changes: Any) -> TransformerConfig:
    options = {
        "num_layers": 1,
        "hidden_size": HEADS * SIZE,
        "num_attention_heads": HEADS,
        "num_query_groups": GROUPS,
        "attention_dropout": 0.0,
        "masked_softmax_fusion": False,
        "normalization": "RMSNorm",
    }
    return TransformerConfig(**options | changes)


def in_one_rank(fn: Callable[[], Any]) -> Any:
    def rank() -> Any:
        with cpu_runtime():
            dist.init_process_group("gloo")
            parallel_state.initialize_model_parallel()
            model_parallel_cuda_manual_seed(1)
            return fn()

    (result,) = run_forked(rank, 1, timeout=60)
    return result


def attention(kind: type, **changes: Any) -> torch.nn.Module:
    return kind(config(**changes), layer_number=1, attn_mask_type=AttnMaskType.causal, attention_type="self")
