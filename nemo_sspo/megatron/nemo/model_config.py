"""The NeMo config of a policy for a layout: shape from Hugging Face, layers from the machine's hardware."""

from __future__ import annotations

from pathlib import Path

import torch
from nemo.collections.llm.gpt.model.base import GPTConfig

from nemo_sspo.config.precisions import Precision
from nemo_sspo.config.stages import Parallel, Train
from nemo_sspo.megatron.layers.config_fields import host_fields, training_fields
from nemo_sspo.megatron.layers.spec import local_layer_spec, training_spec
from nemo_sspo.megatron.models.families import read_hf_config
from nemo_sspo.megatron.models.precision import params_dtype
from nemo_sspo.megatron.models.refusals import policy_for
from nemo_sspo.megatron.nemo.policy_config import nemo_config
from nemo_sspo.megatron.nemo.versions import require_nemo


def host_config(hf_dir: Path, dtype: torch.dtype) -> GPTConfig:
    """Config of the whole policy in `dtype` on the host, for conversion.

    Raises UserError where NeMo or megatron-core is of a version that was never tested.
    """
    require_nemo()
    return nemo_config(read_hf_config(hf_dir), transformer_layer_spec=local_layer_spec, **host_fields(dtype))


def training_config(hf_dir: Path, parallel: Parallel, precision: Precision, train: Train) -> GPTConfig:
    """Config of the policy for training in this layout. NeMo's strategy enters the parallel sizes themselves.

    Raises UserError where NeMo or megatron-core is of a version that was never tested, the layout does not divide the
    model, or the machine does not have the precision.
    """
    require_nemo()
    policy = policy_for(hf_dir, parallel, precision, train, "nemo")
    fields = training_fields(parallel, train, params_dtype(precision))
    return nemo_config(policy, transformer_layer_spec=training_spec(train), **fields)
