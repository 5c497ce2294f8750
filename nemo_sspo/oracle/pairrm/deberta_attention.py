"""DeBERTa-v2's layers where only some tokens' last states are wanted, with attention scores of bounded size.

Legend: R rows, S padded length, T tokens asked for (T = S except in the last layer), H hidden size, N heads, D head
size, P places in the table of relative positions. The numbers are those of transformers' `DebertaV2Encoder`; what
differs is how much is computed and held:
- What depends on the weights alone, the projections of the table, is computed once and not for every row and layer.
- Content x table is computed for the places that rows of this length reach: 2S - 1 of the 512 of short rows.
- Keys are taken backwards, which changes no sum over them: the place of query i and key j then depends on i + j, so
  that the places of all pairs are a view of 2S - 1 numbers and not S x S of them.
- A few queries of one head are finished at a time, so that their scores stay in cache.
- The last layer computes the wanted tokens alone.
Written for CPUs; a GPU has enough memory without it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import DebertaV2Model

SCORES_AT_ONCE = 1 << 17
"""Elements of scores that are worked on at once: 512 KiB, half of a processor's second cache."""
PRODUCTS_AT_ONCE = 1 << 20
"""Elements of content x table of the rows that are worked on at once; one row may have more."""


class DisentangledAttention(nn.Module):
    """`DisentangledSelfAttention` (He et al., 2021, eq. 4) in inference, with its parameters."""

    far_key_NPD: Tensor | None
    far_query_NPD: Tensor | None

    def __init__(self, source: Any, table_PH: Tensor) -> None:
        """`table_PH` holds the embeddings of the relative positions, from the farthest key behind to that ahead."""
        super().__init__()
        self.query_proj, self.key_proj, self.value_proj = source.query_proj, source.key_proj, source.value_proj
        self._heads, shared = source.num_attention_heads, source.share_att_key
        c2p, p2c = "c2p" in source.pos_att_type, "p2c" in source.pos_att_type
        self._scale = 1 / math.sqrt(source.query_proj.out_features // self._heads * (1 + c2p + p2c))
        far_key = (source.key_proj if shared else source.pos_key_proj)(table_PH[None]) if c2p else None
        far_query = (source.query_proj if shared else source.pos_query_proj)(table_PH[None]) if p2c else None
        self.register_buffer("far_key_NPD", None if far_key is None else self._by_head(far_key)[:, 0], persistent=False)
        self.register_buffer(
            "far_query_NPD",
            None if far_query is None else self._by_head(far_query * self._scale)[:, 0],
            persistent=False,
        )

    def forward(
        self, query_RTH: Tensor, backwards_RSH: Tensor, mask_RS: Tensor | None, near: slice, place_XTS: Tensor
    ) -> Tensor:
        """Context [R, T, H] of queries over all tokens of their rows, which come backwards.

        `mask_RS` (backwards too) is true where there is a token, or None where that is everywhere. `place_XTS`, X = R
        or 1, holds the place of query and key within the part `near` of the table.
        """
        query_NRTD = self._by_head(self.query_proj(query_RTH) * self._scale)
        key_NRSD = self._by_head(self.key_proj(backwards_RSH))
        value_NRSD = self._by_head(self.value_proj(backwards_RSH))
        context_NRTD = torch.empty_like(query_NRTD)
        rows, length = backwards_RSH.shape[:2]
        step = max(1, PRODUCTS_AT_ONCE // (length * (near.stop - near.start)))
        for head in range(self._heads):
            far_key = None if self.far_key_NPD is None else self.far_key_NPD[head, near]
            far_query = None if self.far_query_NPD is None else self.far_query_NPD[head, near]
            for start in range(0, rows, step):
                part = slice(start, start + step)
                context_NRTD[head, part] = _attend(
                    query_NRTD[head, part],
                    key_NRSD[head, part],
                    value_NRSD[head, part],
                    far_key,
                    far_query,
                    place_XTS if len(place_XTS) == 1 else place_XTS[part],
                    None if mask_RS is None else mask_RS[part],
                )
        return context_NRTD.permute(1, 2, 0, 3).flatten(2)

    def _by_head(self, x_RSH: Tensor) -> Tensor:
        """Heads first: [R, S, H] to [N, R, S, D]."""
        return x_RSH.unflatten(-1, (self._heads, -1)).permute(2, 0, 1, 3).contiguous()


def _attend(
    query_RTD: Tensor,
    key_RSD: Tensor,
    value_RSD: Tensor,
    far_key_PD: Tensor | None,
    far_query_PD: Tensor | None,
    place_XTS: Tensor,
    mask_RS: Tensor | None,
) -> Tensor:
    """One head's context [R, T, D] of some rows, a block of queries at a time."""
    rows, tokens, length = len(query_RTD), query_RTD.size(1), key_RSD.size(1)
    from_keys_RSP = None if far_query_PD is None else key_RSD @ far_query_PD.mT
    context_RTD = torch.empty_like(query_RTD)
    step = max(1, SCORES_AT_ONCE // (rows * length))
    for start in range(0, tokens, step):
        block = slice(start, min(start + step, tokens))
        query, place = query_RTD[:, block], place_XTS[:, block].expand(rows, -1, -1)
        if far_key_PD is None:
            scores = query @ key_RSD.mT
        else:
            scores = (query @ far_key_PD.mT).gather(-1, place).baddbmm_(query, key_RSD.mT)
        if from_keys_RSP is not None:
            scores += from_keys_RSP.gather(-1, place.mT).mT
        if mask_RS is not None:
            scores.masked_fill_(~mask_RS[:, None], torch.finfo(scores.dtype).min)
        context_RTD[:, block] = torch.softmax(scores, dim=-1) @ value_RSD
    return context_RTD


class WantedStates(nn.Module):
    """Last hidden states of a few tokens of each row."""

    def __init__(self, backbone: DebertaV2Model) -> None:
        """Takes the backbone over: its attention is replaced, its parameters stay and must not change any more."""
        super().__init__()
        self.backbone = backbone
        encoder: Any = backbone.encoder
        self._whole = encoder.conv is not None or not encoder.relative_attention
        if self._whole:  # a convolution over neighbours, or absolute positions: not a DeBERTa-v3
            return
        self._span = int(encoder.layer[0].attention.self.pos_ebd_size)
        with torch.no_grad():
            table_PH = encoder.get_rel_embedding()[: 2 * self._span]
            for layer in encoder.layer:
                layer.attention.self = DisentangledAttention(layer.attention.self, table_PH)

    def forward(self, token_ids_RS: Tensor, mask_RS: Tensor, wanted_RT: Tensor) -> Tensor:
        """States [R, T, H] of the tokens at `wanted_RT`."""
        rows_R1 = torch.arange(len(token_ids_RS), device=token_ids_RS.device)[:, None]
        if self._whole:
            states = self.backbone(input_ids=token_ids_RS, attention_mask=mask_RS).last_hidden_state
            return states[rows_R1, wanted_RT]
        encoder: Any = self.backbone.encoder
        h_RSH = self.backbone.embeddings(input_ids=token_ids_RS, mask=mask_RS)
        length = token_ids_RS.size(1)
        place = self._places(length, token_ids_RS.device)
        near = slice(int(place[0]), int(place[-1]) + 1)  # places rise with the distance
        place = place - near.start
        place_1SS = place.unfold(0, length, 1)[None]  # of query i and key j from the end: place[i + j]
        mask = None if bool(mask_RS.all()) else mask_RS.bool().flip(1)
        for layer in encoder.layer[:-1]:
            h_RSH = _layer(layer, h_RSH, h_RSH.flip(1), mask, near, place_1SS)
        return _layer(encoder.layer[-1], h_RSH[rows_R1, wanted_RT], h_RSH.flip(1), mask, near, place_1SS[0][wanted_RT])

    def _places(self, length: int, device: torch.device) -> Tensor:
        """Place in the table of relative positions of the distances 1 - S, ..., S - 1 of a query from its key."""
        from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

        encoder: Any = self.backbone.encoder
        distance = torch.arange(1 - length, length, device=device)
        if encoder.position_buckets > 0:
            distance = make_log_bucket_position(distance, encoder.position_buckets, encoder.max_relative_positions)
        return (distance.long() + self._span).clamp_(0, 2 * self._span - 1)


def _layer(
    layer: Any, query_RTH: Tensor, backwards_RSH: Tensor, mask_RS: Tensor | None, near: slice, place_XTS: Tensor
) -> Tensor:
    """transformers' `DebertaV2Layer` for the tokens of `query_RTH`."""
    context_RTH = layer.attention.self(query_RTH, backwards_RSH, mask_RS, near, place_XTS)
    attended_RTH = layer.attention.output(context_RTH, query_RTH)
    return layer.output(layer.intermediate(attended_RTH), attended_RTH)
