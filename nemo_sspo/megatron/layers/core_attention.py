"""Core attention where Megatron and Transformer Engine have no kernel: any mask of parts, and capped logits."""

from __future__ import annotations

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.process_groups_config import ProcessGroupCollection
from megatron.core.tensor_parallel import get_cuda_rng_tracker
from megatron.core.tensor_parallel.mappings import gather_from_sequence_parallel_region
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.core.transformer.utils import is_layer_window_attention
from torch import Tensor

from nemo_sspo.errors import UserError
from nemo_sspo.megatron.layers.attention_mask import AttentionMask, PackedRow, padded_mask
from nemo_sspo.megatron.layers.gemma2 import attention_softcap, soft_cap


class CoreAttention(MegatronModule):
    """Causal self-attention by `AttentionMask`: grouped queries, sliding windows, capped logits, packed rows, shared
    prompts, context parallelism. How scores and values are multiplied is the subclass's `attend`.

    Under context parallelism the keys and values of all ranks are gathered (backward: reduce-scattered). That costs
    memory of the whole row's keys and values, which ring attention saves.
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
            raise UserError(f"this attention is causal self-attention only, not {attn_mask_type} {attention_type}")
        if getattr(config, "softmax_type", "vanilla") != "vanilla":
            raise UserError(f"this attention has no softmax_type {config.softmax_type!r}: it needs Transformer Engine")
        groups = pg_collection or ProcessGroupCollection.use_mpu_process_groups(required_pgs=["tp", "cp"])
        self.cp_group = groups.cp
        self.dropout = config.attention_dropout if attention_dropout is None else attention_dropout
        self.scale = config.kv_channels**-0.5 if softmax_scale is None else softmax_scale
        self.softcap = attention_softcap(config)
        if config.apply_query_key_layer_scaling:
            self.scale /= max(1, layer_number)
        is_windowed = is_layer_window_attention(config.window_size, config.window_attn_skip_freq, layer_number)
        is_bounded = is_windowed and config.window_size[0] >= 0  # Megatron's -1 is no bound
        self.window = config.window_size[0] if is_bounded else None

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
        """query [S, B, A, D], key and value [S, B, G, D] -> [S, B, A * D]; packed: all without B.

        There is no `attention_mask`: the packed row determines the mask. In padded rows the padding comes after the
        tokens, where causal queries do not attend.
        """
        mask = self._mask(packed_seq_params, query.shape[0], query.device)
        if packed_seq_params is not None:
            query, key, value = (x.unsqueeze(1) for x in (query, key, value))
        if self.cp_group.size() > 1:
            key, value = (
                gather_from_sequence_parallel_region(x.contiguous(), group=self.cp_group) for x in (key, value)
            )
        q_BASD, k_BGTD, v_BGTD = (x.permute(1, 2, 0, 3) for x in (query, key, value))
        output = self.attend(q_BASD, k_BGTD, v_BGTD, mask).permute(2, 0, 1, 3).flatten(2).contiguous()
        return output.squeeze(1) if packed_seq_params is not None else output

    def attend(self, q_BASD: Tensor, k_BGTD: Tensor, v_BGTD: Tensor, mask: AttentionMask) -> Tensor:
        """[B, A, S, D]."""
        raise NotImplementedError

    def _mask(self, row: PackedSeqParams | None, local_length: int, device: torch.device) -> AttentionMask:
        rank, size = self.cp_group.rank(), self.cp_group.size()
        if row is None:
            return padded_mask(local_length * size, self.window, rank, size, device)
        if not isinstance(row, PackedRow):
            raise TypeError(f"a packed row is to be described by a PackedRow, not by {type(row).__name__}")
        return row.attention_mask(local_length * size, self.window, rank, size)


class LocalCoreAttention(CoreAttention):
    """In plain torch, with a mask of [S, T], and where logits are capped scores of [B, A, S, T] in fp32: for a CPU."""

    def attend(self, q_BASD: Tensor, k_BGTD: Tensor, v_BGTD: Tensor, mask: AttentionMask) -> Tensor:
        dropout, mask_ST = self.dropout if self.training else 0.0, mask.dense()
        # The heads differ between the tensor-parallel ranks, and so must their dropout. Under sequence parallelism the
        # transformer block has forked the generator already.
        must_fork = dropout > 0.0 and not self.config.sequence_parallel
        with get_cuda_rng_tracker().fork() if must_fork else nullcontext():
            if self.softcap is not None:
                return self._attend_capped(q_BASD, k_BGTD, v_BGTD, mask_ST, dropout, self.softcap)
            return F.scaled_dot_product_attention(
                q_BASD, k_BGTD, v_BGTD, attn_mask=mask_ST, dropout_p=dropout, scale=self.scale, enable_gqa=True
            )

    def _attend_capped(
        self, q_BASD: Tensor, k_BGTD: Tensor, v_BGTD: Tensor, mask_ST: Tensor, dropout: float, cap: float
    ) -> Tensor:
        """Scores are scaled, capped and masked, in this order (arXiv:2408.00118, 2)."""
        q_BGQSD = q_BASD.unflatten(1, (k_BGTD.shape[1], -1))
        scores_BGQST = (q_BGQSD @ k_BGTD[:, :, None].transpose(-1, -2)).float() * self.scale
        scores_BGQST = soft_cap(scores_BGQST, cap).masked_fill(~mask_ST, -torch.inf)
        weights_BGQST = F.dropout(scores_BGQST.softmax(dim=-1), dropout).to(v_BGTD.dtype)
        return (weights_BGQST @ v_BGTD[:, :, None]).flatten(1, 2)
