"""Which transformer layers to build: Transformer Engine's where it can run, else Megatron's with two parts replaced.

Megatron's local layers refuse sequence parallelism (their norm), context parallelism and packed rows (their attention).
The two modules here support all three on a CPU; on a GPU Transformer Engine does.

Legend: S this rank's positions of a row, T positions of the whole row, B rows, N heads, G key-value heads, D head size.
"""

from __future__ import annotations

import logging
from contextlib import nullcontext
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from megatron.core.models.gpt.gpt_layer_specs import (
    get_gpt_layer_local_spec,
    get_gpt_layer_with_transformer_engine_spec,
)
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.process_groups_config import ProcessGroupCollection
from megatron.core.tensor_parallel import get_cuda_rng_tracker
from megatron.core.tensor_parallel.mappings import gather_from_sequence_parallel_region
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.identity_op import IdentityOp
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules, get_num_layers_to_build
from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.core.transformer.utils import is_layer_window_attention
from torch import Tensor, nn

from nemo_sspo.errors import UserError
from nemo_sspo.megatron.gemma2 import attention_softcap, has_sandwich_norms, soft_cap, with_sandwich_norms
from nemo_sspo.megatron.microbatch import zigzag_indices

_log = logging.getLogger(__name__)


def transformer_engine_usable() -> bool:
    """True where Transformer Engine is installed and has a GPU to run on."""
    return torch.cuda.is_available() and find_spec("transformer_engine") is not None


def layer_spec(config: TransformerConfig, vp_stage: int | None = None) -> ModuleSpec | TransformerBlockSubmodules:
    """Spec of this pipeline stage's layers, for dense GPT models. The choice is written to the log.

    Has the signature of NeMo's `GPTConfig.transformer_layer_spec`.
    """
    if transformer_engine_usable():
        return _transformer_engine_spec(config)
    _log.info("transformer layers: Megatron's local ones (no Transformer Engine with a GPU here)")
    return local_layer_spec(config, vp_stage)


def _transformer_engine_spec(config: TransformerConfig) -> ModuleSpec:
    spec = get_gpt_layer_with_transformer_engine_spec(qk_layernorm=config.qk_layernorm)
    if has_sandwich_norms(config):
        from megatron.core.extensions.transformer_engine import TENorm

        with_sandwich_norms(spec, config, TENorm)
    if attention_softcap(config) is None:
        _log.info("transformer layers: Transformer Engine")
        return spec
    spec.submodules.self_attention.submodules.core_attention = LocalCoreAttention
    _log.info("transformer layers: Transformer Engine, with attention in plain torch (it caps its logits)")
    return spec


def local_layer_spec(config: TransformerConfig, vp_stage: int | None = None) -> TransformerBlockSubmodules:
    """Megatron's local layers with a norm and a core attention that work under SP, CP and packing."""
    if config.num_moe_experts:
        raise UserError("mixture-of-experts models need Transformer Engine and a GPU")
    spec = get_gpt_layer_local_spec(qk_layernorm=config.qk_layernorm, normalization=config.normalization)
    spec.submodules.input_layernorm = LocalNorm
    spec.submodules.pre_mlp_layernorm = LocalNorm
    attention = spec.submodules.self_attention.submodules
    attention.core_attention = LocalCoreAttention
    if attention.q_layernorm is not IdentityOp:
        attention.q_layernorm = attention.k_layernorm = LocalNorm
    if has_sandwich_norms(config):
        with_sandwich_norms(spec, config, LocalNorm)
    layers = get_num_layers_to_build(config, vp_stage=vp_stage)
    return TransformerBlockSubmodules(layer_specs=[spec] * layers, layer_norm=LocalNorm)


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


class LocalCoreAttention(MegatronModule):
    """Causal softmax attention in plain torch: grouped queries, sliding windows, capped logits, packed rows, context
    parallelism.

    Under context parallelism the keys and values of all ranks are gathered (backward: reduce-scattered), and masked by
    their position in the row. That costs the memory that ring attention saves: it is for small models on a CPU, and
    for models that cap their attention logits, for which Transformer Engine has no kernel. Those hold their scores,
    [B, N, S, T] in fp32.
    """

    def __init__(
        self,
        config: TransformerConfig,
        layer_number: int,
        attn_mask_type: AttnMaskType,
        attention_type: str,
        attention_dropout: float | None = None,
        softmax_scale: float | None = None,
        cp_comm_type: str | None = None,
        pg_collection: ProcessGroupCollection | None = None,
    ) -> None:
        super().__init__(config=config)
        if attn_mask_type != AttnMaskType.causal or attention_type != "self":
            raise UserError(f"local attention is causal self-attention only, not {attn_mask_type} {attention_type}")
        if getattr(config, "softmax_type", "vanilla") != "vanilla":
            raise UserError(f"local attention has no softmax_type {config.softmax_type!r}: it needs Transformer Engine")
        groups = pg_collection or ProcessGroupCollection.use_mpu_process_groups(required_pgs=["tp", "cp"])
        self.cp_group = groups.cp
        self.dropout = config.attention_dropout if attention_dropout is None else attention_dropout
        self.scale = config.kv_channels**-0.5 if softmax_scale is None else softmax_scale
        self.softcap = attention_softcap(config)
        if config.apply_query_key_layer_scaling:
            self.scale /= max(1, layer_number)
        is_windowed = is_layer_window_attention(config.window_size, config.window_attn_skip_freq, layer_number)
        self.window = config.window_size[0] if is_windowed else None

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None = None,
        attn_mask_type: AttnMaskType | None = None,
        attention_bias: Tensor | None = None,
        packed_seq_params: PackedSeqParams | None = None,
    ) -> Tensor:
        """query [S, B, N, D], key and value [S, B, G, D] -> [S, B, N * D]; packed: all without B.

        `attention_mask`: the distances of shared prompts (`prompt_sharing.py`), [S, S]. Otherwise there is none:
        padding stands behind the tokens, so the causal mask hides it.
        """
        if packed_seq_params is not None:
            query, key, value = (x.unsqueeze(1) for x in (query, key, value))
        if attention_mask is None:
            bounds = None if packed_seq_params is None else packed_seq_params.cu_seqlens_q
            mask_ST = self._mask(bounds, query.shape[0], query.device)
        else:
            mask_ST = self._mask_of_distances(attention_mask)
        if self.cp_group.size() > 1:
            key, value = (
                gather_from_sequence_parallel_region(x.contiguous(), group=self.cp_group) for x in (key, value)
            )
        q_BNSD, k_BGTD, v_BGTD = (x.permute(1, 2, 0, 3) for x in (query, key, value))
        o_BNSD = self._attend(q_BNSD, k_BGTD, v_BGTD, mask_ST)
        o_SBP = o_BNSD.permute(2, 0, 1, 3).flatten(2).contiguous()
        return o_SBP.squeeze(1) if packed_seq_params is not None else o_SBP

    def _mask(self, cu_seqlens: Tensor | None, local_length: int, device: torch.device) -> Tensor:
        """[S, T], true where a query may look: same sequence, not later, not further back than the window."""
        size, rank = self.cp_group.size(), self.cp_group.rank()
        if cu_seqlens is None:
            cu_seqlens = torch.tensor([0, local_length * size])
        cu_seqlens = cu_seqlens.cpu()
        q_S = zigzag_indices(cu_seqlens, rank, size)[:, None]
        k_T = torch.cat([zigzag_indices(cu_seqlens, other, size) for other in range(size)])[None]
        inner = cu_seqlens[1:-1].long()
        same_sequence = torch.bucketize(q_S, inner, right=True) == torch.bucketize(k_T, inner, right=True)
        mask_ST = same_sequence & (k_T <= q_S)
        if self.window is not None and self.window >= 0:
            mask_ST &= q_S - k_T <= self.window
        return mask_ST.to(device)

    def _mask_of_distances(self, distance_SS: Tensor) -> Tensor:
        is_seen_SS = distance_SS >= 0
        if self.window is not None and self.window >= 0:
            is_seen_SS &= distance_SS <= self.window
        return is_seen_SS

    def _attend(self, q_BNSD: Tensor, k_BGTD: Tensor, v_BGTD: Tensor, mask_ST: Tensor) -> Tensor:
        dropout = self.dropout if self.training else 0.0
        # The heads differ between the tensor-parallel ranks, and so must their dropout. Under sequence parallelism the
        # transformer block has forked the generator already.
        must_fork = dropout > 0.0 and not self.config.sequence_parallel
        with get_cuda_rng_tracker().fork() if must_fork else nullcontext():
            if self.softcap is not None:
                return self._attend_capped(q_BNSD, k_BGTD, v_BGTD, mask_ST, dropout, self.softcap)
            return F.scaled_dot_product_attention(
                q_BNSD, k_BGTD, v_BGTD, attn_mask=mask_ST, dropout_p=dropout, scale=self.scale, enable_gqa=True
            )

    def _attend_capped(
        self, q_BNSD: Tensor, k_BGTD: Tensor, v_BGTD: Tensor, mask_ST: Tensor, dropout: float, cap: float
    ) -> Tensor:
        """Scores are scaled, capped and masked, in this order (arXiv:2408.00118, 2)."""
        q_BGQSD = q_BNSD.unflatten(1, (k_BGTD.shape[1], -1))
        scores_BGQST = (q_BGQSD @ k_BGTD[:, :, None].transpose(-1, -2)).float() * self.scale
        scores_BGQST = soft_cap(scores_BGQST, cap).masked_fill(~mask_ST, -torch.inf)
        weights_BGQST = F.dropout(scores_BGQST.softmax(dim=-1), dropout).to(v_BGTD.dtype)
        return (weights_BGQST @ v_BGTD[:, :, None]).flatten(1, 2)
