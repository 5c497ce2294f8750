"""The parity tests' model on one rank: a real Megatron GPT model, holding its shards of `world.weights`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.distributed import (
    DistributedDataParallel,
    DistributedDataParallelConfig,
    finalize_model_grads,
)
from megatron.core.models.gpt import GPTModel
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor

from nemo_sspo.megatron.layers.core_attention import CoreAttention, LocalCoreAttention
from nemo_sspo.megatron.layers.gemma2 import finish_gemma2, gelu_tanh
from nemo_sspo.megatron.layers.spec import local_layer_spec
from nemo_sspo.megatron.models.feed_forward import FeedForwardNames, Mixture
from tests.distributed import world
from tests.distributed.architectures import GEMMA2, LLAMA, Architecture
from tests.distributed.world import Layout


@dataclass
class _Gemma2Config(TransformerConfig):
    """Megatron's config with the fields that NeMo's has for Gemma 2, and this package's own."""

    sandwich_norms: bool = True
    attn_logit_softcapping: float | None = None
    final_logit_softcapping: float | None = None


def config_of(architecture: Architecture, **fields: Any) -> TransformerConfig:
    """Megatron's config of a tiny model; `fields`: of the layout and the precision."""
    if architecture is GEMMA2:
        return _Gemma2Config(**world.MODEL | _gemma2_fields(architecture) | fields)
    if architecture.experts is not None:
        mixture = Mixture(
            experts=architecture.experts,
            experts_key="",
            experts_per_token=architecture.experts_per_token,
            intermediate_size=world.FFN,
            intermediate_key="",
            renormalized=True,
            layers=(True,) * world.LAYERS,
            names=FeedForwardNames(),
        )
        return TransformerConfig(**world.MODEL | mixture.fields() | fields)
    return TransformerConfig(**world.MODEL | fields)


def _gemma2_fields(architecture: Architecture) -> dict[str, Any]:
    assert architecture.window is not None
    return {
        "activation_func": gelu_tanh,
        "kv_channels": architecture.head_size,
        "softmax_scale": architecture.query_scale**-0.5,
        "layernorm_zero_centered_gamma": True,
        "window_size": (architecture.window - 1, 0),
        "window_attn_skip_freq": 2,
        "attn_logit_softcapping": architecture.attention_cap,
        "final_logit_softcapping": architecture.final_cap,
    }


def _config(layout: Layout, dropout: float, architecture: Architecture) -> TransformerConfig:
    return config_of(
        architecture,
        attention_dropout=dropout,
        hidden_dropout=dropout,
        tensor_model_parallel_size=layout.tensor,
        sequence_parallel=layout.sequence,
        pipeline_model_parallel_size=layout.pipeline,
        virtual_pipeline_model_parallel_size=layout.virtual,
        context_parallel_size=layout.context,
        expert_model_parallel_size=layout.expert,
        expert_tensor_parallel_size=layout.expert_tensor,
        # Interleaved stages with batched point-to-point calls deliver wrong activations over gloo, silently.
        overlap_p2p_comm=layout.virtual is not None,
        batch_p2p_comm=layout.virtual is None,
        batch_p2p_sync=False,
        recompute_granularity=layout.recompute,
        recompute_method="uniform" if layout.recompute == "full" else None,
        recompute_num_layers=1 if layout.recompute == "full" else None,
        pipeline_dtype=torch.float32,
        params_dtype=torch.float32,
        use_cpu_initialization=True,
        gradient_accumulation_fusion=False,
        bias_dropout_fusion=False,
        bias_activation_fusion=False,
        masked_softmax_fusion=False,
        persist_layer_norm=False,
    )


def build(
    layout: Layout,
    *,
    tied: bool,
    dropout: float,
    architecture: Architecture = LLAMA,
    attention: type[CoreAttention] = LocalCoreAttention,
) -> list[DistributedDataParallel]:
    """This rank's model chunks, filled with its shards of `world.weights`."""
    config = _config(layout, dropout, architecture)
    config.finalize_model_grads_func = finalize_model_grads
    full = world.weights(tied=tied, architecture=architecture)
    chunks = []
    for chunk in range(layout.virtual or 1):
        vp_stage = chunk if layout.virtual else None
        where = {"ignore_virtual": False, "vp_stage": vp_stage}
        model = GPTModel(
            config,
            local_layer_spec(config, vp_stage, attention),
            world.PADDED_VOCAB,
            world.PADDED_ROW,
            pre_process=parallel_state.is_pipeline_first_stage(**where),
            post_process=parallel_state.is_pipeline_last_stage(**where),
            share_embeddings_and_output_weights=tied,
            position_embedding_type="rope",
            rotary_base=int(world.ROPE_BASE),
            vp_stage=vp_stage,
        )
        if architecture is GEMMA2:
            finish_gemma2(model)
        for name, parameter in named_parameters(model):
            size = layout.expert_tensor if ".local_experts." in name else layout.tensor
            parameter.data.copy_(cut(name, full[name], parameter, size))
        ddp = DistributedDataParallelConfig(use_distributed_optimizer=False, overlap_grad_reduce=layout.overlap)
        chunks.append(DistributedDataParallel(config, ddp, model, disable_bucketing=chunk > 0))
    if layout.overlap:
        (only,) = chunks
        config.no_sync_func = only.no_sync
    return chunks


def named_parameters(model: GPTModel) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """Parameters under their names in the whole model: layers counted over all stages, a tied output under its own."""
    for name, parameter in model.named_parameters():
        if name.startswith("decoder.layers."):
            head, index, rest = name.removeprefix("decoder.").split(".", 2)
            name = f"decoder.{head}.{model.decoder.layers[int(index)].layer_number - 1}.{_of_all_experts(rest, model)}"
        if name == "output_layer.weight" and model.share_embeddings_and_output_weights:
            name = "embedding.word_embeddings.weight"
        yield name, parameter


def _of_all_experts(name: str, model: GPTModel) -> str:
    """A parameter's name within its layer, experts counted over all ranks."""
    before, found, after = name.partition(".local_experts.")
    if not found:
        return name
    index, rest = after.split(".", 1)
    held = model.config.num_moe_experts // parallel_state.get_expert_model_parallel_world_size()
    return f"{before}{found}{held * parallel_state.get_expert_model_parallel_rank() + int(index)}.{rest}"


def cut_rank(name: str) -> int:
    """Which part of a parameter that is cut over ranks this rank holds."""
    if ".local_experts." in name:
        return parallel_state.get_expert_tensor_parallel_rank()
    return parallel_state.get_tensor_model_parallel_rank()


def cut_dimension(parameter: torch.nn.Parameter) -> int | None:
    return parameter.partition_dim if getattr(parameter, "tensor_model_parallel", False) else None


def cut(name: str, full: Tensor, parameter: torch.nn.Parameter, size: int) -> Tensor:
    dimension, rank = cut_dimension(parameter), cut_rank(name)
    if dimension is None:
        return full
    if name.endswith("linear_fc1.weight"):  # gate and up are cut each for itself
        return torch.cat([half.chunk(size)[rank] for half in full.chunk(2)])
    return full.chunk(size, dim=dimension)[rank]
