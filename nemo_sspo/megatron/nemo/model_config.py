"""The NeMo config of a policy for a layout: shape from Hugging Face, layers from the machine's hardware."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from nemo.collections.llm.gpt.model.base import GPTConfig

from nemo_sspo.config.precisions import Precision
from nemo_sspo.config.stages import Parallel, Train
from nemo_sspo.errors import UserError
from nemo_sspo.megatron.layers.spec import layer_spec, local_layer_spec, takes_transformer_engine
from nemo_sspo.megatron.models.families import read_hf_config
from nemo_sspo.megatron.models.layout import layout_problems, setting_problems
from nemo_sspo.megatron.models.precision import params_dtype, require_support
from nemo_sspo.megatron.nemo.policy_config import nemo_config
from nemo_sspo.megatron.nemo.versions import require_nemo

_FUSED_KERNELS = (
    "apply_rope_fusion",
    "bias_activation_fusion",
    "bias_dropout_fusion",
    "masked_softmax_fusion",
    "persist_layer_norm",
    "gradient_accumulation_fusion",
    "cross_entropy_loss_fusion",
)


def host_config(hf_dir: Path, dtype: torch.dtype) -> GPTConfig:
    """Config of the whole policy in `dtype` on the host, for conversion.

    Raises UserError where NeMo or megatron-core is of a version that was never tested.
    """
    require_nemo()
    return nemo_config(
        read_hf_config(hf_dir),
        transformer_layer_spec=local_layer_spec,
        use_cpu_initialization=True,
        perform_initialization=False,
        params_dtype=dtype,
        pipeline_dtype=dtype,
        **dict.fromkeys(_FUSED_KERNELS, False),
    )


def training_config(hf_dir: Path, parallel: Parallel, precision: Precision, train: Train) -> GPTConfig:
    """Config of the policy for training in this layout.

    Raises UserError where NeMo or megatron-core is of a version that was never tested, the layout does not divide the
    model, or the machine does not have the precision.

    NeMo's strategy enters the parallel sizes themselves.
    """
    require_nemo()
    require_support(precision)
    policy = read_hf_config(hf_dir)
    for problem in (*layout_problems(policy, parallel), *setting_problems(parallel, train, precision)):
        raise UserError(problem)
    dtype = params_dtype(precision)
    return nemo_config(
        policy,
        transformer_layer_spec=partial(layer_spec, shares_prompts=train.share_prompt, layers=train.layers),
        # The weights are overwritten at once, but Megatron marks them as tensor-parallel while it initializes them:
        # without the marks the gradient norm, and with it clipping, would leave out all TP ranks but the first.
        perform_initialization=True,
        params_dtype=dtype,
        pipeline_dtype=dtype,
        # Batched p2p with interleaved stages gives wrong numbers at PP 2 (seen with gloo); one by one is right.
        overlap_p2p_comm=parallel.virtual_pipeline is not None,
        batch_p2p_comm=parallel.virtual_pipeline is None,
        **_recomputation(train),
        **_kernels(train),
    )


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
