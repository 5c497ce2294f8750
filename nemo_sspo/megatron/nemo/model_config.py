"""The NeMo config of a policy for a layout: shape from Hugging Face, layers from the machine's hardware."""

from __future__ import annotations

from pathlib import Path

import torch
from nemo.collections.llm.gpt.model.base import GPTConfig

from nemo_sspo.config.precisions import Precision
from nemo_sspo.config.stages import Parallel, Train
from nemo_sspo.errors import UserError
from nemo_sspo.megatron.layers.config_fields import host_fields, training_fields
from nemo_sspo.megatron.models.families import read_hf_config
from nemo_sspo.megatron.models.layout import layout_problems, setting_problems
from nemo_sspo.megatron.models.precision import params_dtype, require_support
from nemo_sspo.megatron.nemo.policy_config import nemo_config
from nemo_sspo.megatron.nemo.versions import require_nemo


def host_config(hf_dir: Path, dtype: torch.dtype) -> GPTConfig:
    """Config of the whole policy in `dtype` on the host, for conversion.

    Raises UserError where NeMo or megatron-core is of a version that was never tested.
    """
    require_nemo()
    return nemo_config(read_hf_config(hf_dir), **host_fields(dtype))


def training_config(hf_dir: Path, parallel: Parallel, precision: Precision, train: Train) -> GPTConfig:
    """Config of the policy for training in this layout. NeMo's strategy enters the parallel sizes themselves.

    Raises UserError where NeMo or megatron-core is of a version that was never tested, the layout does not divide the
    model, or the machine does not have the precision.
    """
    require_nemo()
    require_support(precision)
    policy = read_hf_config(hf_dir)
    for problem in (*layout_problems(policy, parallel), *setting_problems(parallel, train, precision)):
        raise UserError(problem)
    return nemo_config(policy, **training_fields(parallel, train, params_dtype(precision)))
