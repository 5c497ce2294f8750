"""Which transformer layers to build: Transformer Engine's where it can run, else Megatron's with two parts replaced.

Megatron's local layers refuse sequence parallelism (their norm), context parallelism and packed rows (their attention).
`LocalNorm` and the attentions of `core_attention.py` and `flex_attention.py` support all three. The latter also stands
in for Transformer Engine's attention where that has no kernel: for shared prompts and for capped logits.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Literal

import torch
import torch.nn.functional as F
from megatron.core.models.gpt.gpt_layer_specs import (
    get_gpt_layer_local_spec,
    get_gpt_layer_with_transformer_engine_spec,
)
from megatron.core.transformer.identity_op import IdentityOp
from megatron.core.transformer.moe import moe_utils
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules, get_num_layers_to_build
from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.core.transformer.transformer_layer import get_transformer_layer_offset
from torch import Tensor, nn

from nemo_sspo.config.stages import Train
from nemo_sspo.errors import UserError
from nemo_sspo.megatron.layers.core_attention import CoreAttention, LocalCoreAttention
from nemo_sspo.megatron.layers.flex_attention import FlexCoreAttention
from nemo_sspo.megatron.layers.gemma2 import attention_softcap, has_sandwich_norms, with_sandwich_norms

_log = logging.getLogger(__name__)

Layers = Literal["auto", "local"]
"""The setting ``train.layers``."""
LayerSpec = Callable[[TransformerConfig, int | None], TransformerBlockSubmodules]
"""(config, chunk of the rank under VPP) -> spec of this pipeline stage's layers."""


def transformer_engine_usable() -> bool:
    """True where Transformer Engine is installed and has a GPU to run on."""
    return torch.cuda.is_available() and find_spec("transformer_engine") is not None


def takes_transformer_engine(layers: Layers) -> bool:
    """Whether a model is built of Transformer Engine's layers, under a ``train.layers`` setting.

    Raises:
        UserError: there is a GPU but no Transformer Engine, and the setting does not ask for local layers.
    """
    if layers == "local":
        return False
    if torch.cuda.is_available() and not transformer_engine_usable():
        raise UserError(
            "a GPU, but no Transformer Engine in this environment: install it (README.md), or take Megatron's slower "
            "local layers with train.layers=local"
        )
    return transformer_engine_usable()


def training_spec(train: Train) -> LayerSpec:
    """The layers of a policy that is trained."""
    return partial(layer_spec, shares_prompts=train.share_prompt, layers=train.layers)


def layer_spec(
    config: TransformerConfig,
    vp_stage: int | None = None,
    *,
    shares_prompts: bool = False,
    layers: Layers = "auto",
) -> TransformerBlockSubmodules:
    """Spec of this pipeline stage's layers. The choice is written to the log.

    Has the signature of NeMo's `GPTConfig.transformer_layer_spec`. `shares_prompts`: rows may have shared prompts.
    """
    if takes_transformer_engine(layers):
        return _transformer_engine_spec(config, vp_stage, shares_prompts=shares_prompts)
    reason = "train.layers=local" if layers == "local" else "no GPU here"
    _log.info("transformer layers: Megatron's local ones (%s)", reason)
    return local_layer_spec(config, vp_stage)


def _transformer_engine_spec(
    config: TransformerConfig, vp_stage: int | None, *, shares_prompts: bool
) -> TransformerBlockSubmodules:
    from megatron.core.extensions.transformer_engine import TENorm

    reasons = _needs_of_flex_attention(config, shares_prompts=shares_prompts)

    def layer(experts: int | None) -> ModuleSpec:
        spec = get_gpt_layer_with_transformer_engine_spec(
            num_experts=experts, moe_grouped_gemm=True, qk_layernorm=config.qk_layernorm
        )
        if has_sandwich_norms(config):
            with_sandwich_norms(spec, config, TENorm)
        if reasons:
            spec.submodules.self_attention.submodules.core_attention = FlexCoreAttention
        return spec

    _log.info("transformer layers: Transformer Engine%s", f", with flex-attention ({reasons})" if reasons else "")
    return TransformerBlockSubmodules(layer_specs=_of_stage(config, vp_stage, layer), layer_norm=TENorm)


def _of_stage(
    config: TransformerConfig, vp_stage: int | None, layer: Callable[[int | None], ModuleSpec]
) -> list[ModuleSpec]:
    """Specs of this pipeline stage's layers. `layer` makes that of a layer with so many experts, or of a dense one."""
    count = get_num_layers_to_build(config, vp_stage=vp_stage)
    if config.num_moe_experts is None:
        return [layer(None)] * count
    first, dense, mixed = get_transformer_layer_offset(config, vp_stage), layer(None), layer(config.num_moe_experts)
    return [mixed if has_experts else dense for has_experts in config.moe_layer_freq[first : first + count]]


def _needs_of_flex_attention(config: TransformerConfig, *, shares_prompts: bool) -> str:
    """Why Transformer Engine's attention does not serve; empty where it does."""
    over_ranks = config.context_parallel_size > 1
    needs = {
        "it caps its logits": attention_softcap(config) is not None,
        "prompts are shared": shares_prompts,
        # Transformer Engine asserts against windows in a ring, and where it passes heads around, against packed rows.
        "windows reach over context-parallel ranks": config.window_size is not None and over_ranks,
    }
    return " and ".join(reason for reason, is_so in needs.items() if is_so)


def local_layer_spec(
    config: TransformerConfig, vp_stage: int | None = None, core_attention: type[CoreAttention] | None = None
) -> TransformerBlockSubmodules:
    """Megatron's local layers with a norm and a core attention that work under SP, CP and packing.

    `core_attention`: None takes flex-attention where there is a GPU, and plain torch elsewhere.
    """
    # The router asks whether this is None, and where there is no Transformer Engine it is not defined at all.
    vars(moe_utils).setdefault("te_general_gemm", None)

    def layer(experts: int | None) -> ModuleSpec:
        spec = get_gpt_layer_local_spec(
            num_experts=experts, qk_layernorm=config.qk_layernorm, normalization=config.normalization
        )
        spec.submodules.input_layernorm = LocalNorm
        spec.submodules.pre_mlp_layernorm = LocalNorm
        if experts is not None:
            # Transformer Engine has the norm in a dense feed-forward's first matrix, and apart from a router.
            names = spec.submodules.sharded_state_dict_keys_map
            spec.submodules.sharded_state_dict_keys_map = {ours: names[ours] for ours in names if "mlp" not in ours}
        attention = spec.submodules.self_attention.submodules
        attention.core_attention = core_attention or _core_attention_here()
        if attention.q_layernorm is not IdentityOp:
            attention.q_layernorm = attention.k_layernorm = LocalNorm
        if has_sandwich_norms(config):
            with_sandwich_norms(spec, config, LocalNorm)
        return spec

    return TransformerBlockSubmodules(layer_specs=_of_stage(config, vp_stage, layer), layer_norm=LocalNorm)


def _core_attention_here() -> type[CoreAttention]:
    return FlexCoreAttention if torch.cuda.is_available() else LocalCoreAttention


class LocalNorm(nn.Module):
    """RMSNorm or LayerNorm in fp32, as `config.normalization` says, usable under sequence parallelism.

    There every rank normalizes its own tokens: the mark on the parameters has Megatron sum their gradients over TP.
    """

    def __init__(self, config: TransformerConfig, hidden_size: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.shape, self.eps = (hidden_size,), eps
        self.offset = 1.0 if config.layernorm_zero_centered_gamma else 0.0
        self.weight = nn.Parameter(torch.full(self.shape, 1.0 - self.offset, dtype=config.params_dtype))
        self.bias = None
        if config.normalization == "LayerNorm":
            self.bias = nn.Parameter(torch.zeros(self.shape, dtype=config.params_dtype))
        for parameter in self.parameters():
            parameter.sequence_parallel = config.sequence_parallel  # type: ignore[attr-defined]

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.float() + self.offset
        if self.bias is None:
            return F.rms_norm(x.float(), self.shape, weight, self.eps).to(x.dtype)
        return F.layer_norm(x.float(), self.shape, weight, self.bias.float(), self.eps).to(x.dtype)
