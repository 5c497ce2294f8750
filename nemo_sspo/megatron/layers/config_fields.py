"""Fields of Megatron's config that say how a policy's layers run; `models/fields.py` has those of its shape."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch

from nemo_sspo.config.stages import Parallel, Train
from nemo_sspo.megatron.layers.spec import takes_transformer_engine

_FUSED_KERNELS = (
    "apply_rope_fusion",
    "bias_activation_fusion",
    "bias_dropout_fusion",
    "masked_softmax_fusion",
    "persist_layer_norm",
    "gradient_accumulation_fusion",
    "cross_entropy_loss_fusion",
    "moe_grouped_gemm",
)


def host_fields(dtype: torch.dtype) -> dict[str, Any]:
    """Of the whole policy in `dtype` on the host, for conversion."""
    return {
        "use_cpu_initialization": True,
        "perform_initialization": False,
        "params_dtype": dtype,
        "pipeline_dtype": dtype,
        **dict.fromkeys(_FUSED_KERNELS, False),
    }


def training_fields(parallel: Parallel, train: Train, dtype: torch.dtype) -> dict[str, Any]:
    """Of a policy that is trained with parameters in `dtype`; the parallel sizes are left out."""
    return {
        # The weights are overwritten at once, but Megatron marks them as tensor-parallel while it initializes them:
        # without the marks the gradient norm, and with it clipping, would leave out all TP ranks but the first.
        "perform_initialization": True,
        "params_dtype": dtype,
        "pipeline_dtype": dtype,
        # Batched p2p with interleaved stages gives wrong numbers at PP 2 (seen with gloo); one by one is right.
        "overlap_p2p_comm": parallel.virtual_pipeline is not None,
        "batch_p2p_comm": parallel.virtual_pipeline is None,
        **_recomputation(train),
        **_kernels(train),
    }


def parallel_fields(parallel: Parallel) -> dict[str, Any]:
    """The sizes of a layout; NeMo's strategy enters them itself."""
    return {
        "tensor_model_parallel_size": parallel.tensor,
        "sequence_parallel": parallel.sequence,
        "pipeline_model_parallel_size": parallel.pipeline,
        "virtual_pipeline_model_parallel_size": parallel.virtual_pipeline,
        "context_parallel_size": parallel.context,
        "expert_model_parallel_size": parallel.expert,
        "expert_tensor_parallel_size": parallel.expert_tensor,
    }


def fused_kernels(activation: str) -> dict[str, Any]:
    """What Transformer Engine's layers are run with, which NeMo's config classes choose themselves.

    `training_fields` takes back what other layers lack. `activation`: as ``config.json`` names it.
    """
    return {
        "apply_rope_fusion": True,
        "bias_activation_fusion": activation == "silu",
        "bias_dropout_fusion": True,
        "masked_softmax_fusion": True,
        "persist_layer_norm": True,
        "deallocate_pipeline_outputs": True,
        # Apex's. Megatron's output layer refuses without it.
        "gradient_accumulation_fusion": find_spec("fused_weight_gradient_mlp_cuda") is not None,
        # All experts of a rank in one product.
        "moe_grouped_gemm": True,
    }


def _kernels(train: Train) -> dict[str, Any]:
    if takes_transformer_engine(train.layers):
        return {}
    on_host = not torch.cuda.is_available()
    return {
        "use_cpu_initialization": on_host,
        "batch_p2p_sync": not on_host,
        # The interleaved schedule frees an activation while its send is still in flight. NCCL's stream order makes
        # that safe; gloo then sends what the memory holds by then (seen: one wrong loss in twenty steps).
        "deallocate_pipeline_outputs": not on_host,
        **dict.fromkeys(_FUSED_KERNELS, False),
    }


def _recomputation(train: Train) -> dict[str, Any]:
    match train.recompute:
        case "none":
            return {}
        case "selective":
            return {"recompute_granularity": "selective"}
        case "full":
            return {"recompute_granularity": "full", "recompute_method": "uniform", "recompute_num_layers": 1}
