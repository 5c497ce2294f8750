"""A policy as Megatron's own model: its config, and the chunks of it that a rank holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from megatron.core.models.gpt import GPTModel
from megatron.core.transformer.module import Float16Module
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules
from torch import nn

from nemo_sspo.config.precisions import Precision
from nemo_sspo.config.stages import Parallel, Train
from nemo_sspo.megatron.head.choice import choose_head, head_tile
from nemo_sspo.megatron.layers.config_fields import fused_kernels, host_fields, parallel_fields, training_fields
from nemo_sspo.megatron.layers.gemma2 import finish_gemma2
from nemo_sspo.megatron.layers.policy_config import ACTIVATIONS, PolicyConfig
from nemo_sspo.megatron.layers.rotary import scale_frequencies
from nemo_sspo.megatron.layers.spec import local_layer_spec, training_spec
from nemo_sspo.megatron.loss.loss import HeadLayout
from nemo_sspo.megatron.models.families import family_of, read_hf_config
from nemo_sspo.megatron.models.family import HFConfig
from nemo_sspo.megatron.models.fields import model_fields, rope_scaling, transformer_fields
from nemo_sspo.megatron.models.precision import params_dtype, precision_fields
from nemo_sspo.megatron.models.refusals import policy_for
from nemo_sspo.megatron.runtime.groups import Groups
from nemo_sspo.megatron.versions import require_megatron_core


def host_policy(hf_dir: Path, dtype: torch.dtype) -> GPTModel:
    """The whole policy in `dtype` on the host, for conversion; its weights are anything."""
    require_megatron_core()
    policy = read_hf_config(hf_dir)
    config = _config(policy, **host_fields(dtype))
    return _model(policy, config, local_layer_spec(config), is_first=True, is_last=True)


def policy_chunks(
    hf_dir: Path, parallel: Parallel, precision: Precision, train: Train, groups: Groups
) -> list[GPTModel]:
    """This rank's chunks of the policy, several under VPP, on its device; their weights are anything. Collective."""
    policy, config = read_hf_config(hf_dir), policy_config(hf_dir, parallel, precision, train)
    stage, stages, count = dist.get_rank(groups.pp), parallel.pipeline, parallel.virtual_pipeline or 1
    return [
        _model(
            policy,
            config,
            training_spec(train)(config, number),
            is_first=stage == 0 and number == 0,
            is_last=stage == stages - 1 and number == count - 1,
            vp_stage=number if parallel.virtual_pipeline else None,
        ).to(torch.cuda.current_device())  # where all is but the routers of experts
        for number in range(count)
    ]


def in_precision(chunk: GPTModel) -> nn.Module:
    """`chunk` as Megatron trains it: under bf16 in the wrapper that keeps its inputs and outputs in the right types."""
    return Float16Module(chunk.config, chunk) if chunk.config.bf16 else chunk


def policy_head(config: PolicyConfig, groups: Groups, hf_dir: Path, train: Train, *, separable: bool) -> HeadLayout:
    """How the policy's log-probs are computed; `separable`: see `head/choice.py`."""
    return HeadLayout.of(
        config,
        groups,
        vocab_size=read_hf_config(hf_dir).count("vocab_size"),
        chunk_tokens=head_tile(train),
        one_pass=choose_head(train, separable=separable) == "one_pass",
    )


def policy_config(hf_dir: Path, parallel: Parallel, precision: Precision, train: Train) -> PolicyConfig:
    """Config of the policy for training in this layout. Raises UserError for what cannot run."""
    policy = policy_for(hf_dir, parallel, precision, train, "core")
    kernels = fused_kernels(family_of(policy).activation)
    settings = training_fields(parallel, train, params_dtype(precision)) | precision_fields(precision)
    return _config(policy, **kernels | parallel_fields(parallel) | settings)


def _config(policy: HFConfig, **settings: Any) -> PolicyConfig:
    activation = ACTIVATIONS[family_of(policy).activation]
    return PolicyConfig(activation_func=activation, **transformer_fields(policy), **settings)


def _model(
    policy: HFConfig,
    config: PolicyConfig,
    spec: TransformerBlockSubmodules,
    *,
    is_first: bool,
    is_last: bool,
    vp_stage: int | None = None,
) -> GPTModel:
    model = GPTModel(
        config,
        spec,
        max_sequence_length=policy.count("max_position_embeddings"),
        pre_process=is_first,
        post_process=is_last,
        vp_stage=vp_stage,
        **model_fields(policy),
    )
    if scaling := rope_scaling(policy):
        model.rotary_pos_emb.inv_freq = scale_frequencies(model.rotary_pos_emb.inv_freq, **scaling)
    return finish_gemma2(model) if config.sandwich_norms else model
