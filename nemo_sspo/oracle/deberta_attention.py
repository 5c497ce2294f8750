"""DeBERTa-v2's layers where only some tokens' last states are wanted, with attention scores of bounded size.

Legend: R rows, S padded length, T tokens asked for (T = S except in the last layer), H hidden size, G = R x heads,
D head size, P relative positions. The numbers are those of transformers' `DebertaV2Encoder`; what differs is how much is
computed and held. Attention is done for a few (row, head) at a time, so that the [S, S] scores stay in cache, and the
last layer computes the wanted tokens alone. Written for processors; a GPU has the memory to do without.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import DebertaV2Model

_SCORES_AT_ONCE = 1 << 20
"""Elements of a [*, T, S] tensor of scores: 4 MiB, which a processor's cache holds."""


class DisentangledAttention(nn.Module):
    """`DisentangledSelfAttention` (He et al., 2021, eq. 4) in inference, with its parameters."""

    def __init__(self, source: Any) -> None:
        super().__init__()
        self.query_proj, self.key_proj, self.value_proj = source.query_proj, source.key_proj, source.value_proj
        self._heads = source.num_attention_heads
        self._c2p, self._p2c = "c2p" in source.pos_att_type, "p2c" in source.pos_att_type
        self.pos_key_proj = source.key_proj if source.share_att_key else getattr(source, "pos_key_proj", None)
        self.pos_query_proj = source.query_proj if source.share_att_key else getattr(source, "pos_query_proj", None)
        self._span = source.pos_ebd_size

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None,
        output_attentions: bool = False,
        query_states: Tensor | None = None,
        relative_pos: Tensor | None = None,
        rel_embeddings: Tensor | None = None,
    ) -> tuple[Tensor, None]:
        """Context [R, T, H] of `query_states` [R, T, H] (all tokens without them) over `hidden_states` [R, S, H].

        `relative_pos` [R or 1, T, S] holds places in the table of relative positions; `attention_mask` [R, S] is true
        where there is a token, or None where that is everywhere.
        """
        del output_attentions
        assert relative_pos is not None and rel_embeddings is not None
        query = hidden_states if query_states is None else query_states
        scale = 1 / math.sqrt(query.size(-1) // self._heads * (1 + self._c2p + self._p2c))
        query_GTD, key_GSD = self._split(self.query_proj(query) * scale), self._split(self.key_proj(hidden_states))
        value_GSD = self._split(self.value_proj(hidden_states))
        table_1PH = rel_embeddings[None, : 2 * self._span]
        far_key = self._split(self.pos_key_proj(table_1PH)) if self._c2p else None
        far_query = self._split(self.pos_query_proj(table_1PH) * scale) if self._p2c else None

        length, tokens = key_GSD.size(1), query_GTD.size(1)
        context_GTD = torch.empty_like(query_GTD)
        step = max(1, _SCORES_AT_ONCE // (tokens * max(length, 2 * self._span)))
        for row in range(hidden_states.size(0)):
            place_TS = relative_pos[min(row, relative_pos.size(0) - 1)]
            for head in range(0, self._heads, step):
                stop = min(head + step, self._heads)
                group, heads = slice(row * self._heads + head, row * self._heads + stop), slice(head, stop)
                scores = torch.bmm(query_GTD[group], key_GSD[group].mT)
                if far_key is not None:
                    scores += _taken(query_GTD[group], far_key[heads], place_TS)
                if far_query is not None:
                    scores += _taken(key_GSD[group], far_query[heads], place_TS.mT).mT
                if attention_mask is not None:
                    scores.masked_fill_(~attention_mask[row], torch.finfo(scores.dtype).min)
                torch.bmm(torch.softmax(scores, dim=-1), value_GSD[group], out=context_GTD[group])
        shape = (hidden_states.size(0), self._heads, tokens, -1)
        return context_GTD.view(shape).transpose(1, 2).flatten(2), None

    def _split(self, x_RSH: Tensor) -> Tensor:
        """Heads apart: [R, S, H] to [G, S, D]."""
        return x_RSH.unflatten(-1, (self._heads, -1)).transpose(1, 2).flatten(0, 1).contiguous()


def _taken(content_GXD: Tensor, table_GPD: Tensor, place_XY: Tensor) -> Tensor:
    """content x table at the place of each pair of tokens: [G, X, Y]."""
    products_GXP = torch.bmm(content_GXD, table_GPD.mT)
    return products_GXP.gather(-1, place_XY.expand(len(products_GXP), *place_XY.shape))


class WantedStates(nn.Module):
    """Last hidden states of a few tokens of each row."""

    def __init__(self, backbone: DebertaV2Model) -> None:
        """Takes the backbone over: its attention is replaced, its parameters stay."""
        super().__init__()
        self.backbone = backbone
        self._whole = backbone.encoder.conv is not None or not backbone.encoder.relative_attention
        if self._whole:  # a convolution over neighbours, or absolute positions: not a DeBERTa-v3
            return
        self._span = backbone.encoder.layer[0].attention.self.pos_ebd_size
        for layer in backbone.encoder.layer:
            layer.attention.self = DisentangledAttention(layer.attention.self)

    def forward(self, token_ids_RS: Tensor, mask_RS: Tensor, wanted_RT: Tensor) -> Tensor:
        """States [R, T, H] of the tokens at `wanted_RT`."""
        rows_R1 = torch.arange(len(token_ids_RS), device=token_ids_RS.device)[:, None]
        if self._whole:
            states = self.backbone(input_ids=token_ids_RS, attention_mask=mask_RS).last_hidden_state
            return states[rows_R1, wanted_RT]
        encoder = self.backbone.encoder
        h_RSH = self.backbone.embeddings(input_ids=token_ids_RS, mask=mask_RS)
        table = encoder.get_rel_embedding()
        place_by_distance = self._places(token_ids_RS.size(1), token_ids_RS.device)
        place_1SS = _by_pair(place_by_distance)[None]
        mask = None if bool(mask_RS.all()) else mask_RS.bool()
        for layer in encoder.layer[:-1]:
            h_RSH, _ = layer(h_RSH, mask, relative_pos=place_1SS, rel_embeddings=table)
        wanted_RTH, wanted_places_RTS = h_RSH[rows_R1, wanted_RT], place_1SS[0][wanted_RT]
        last_RTH, _ = encoder.layer[-1](
            h_RSH, mask, query_states=wanted_RTH, relative_pos=wanted_places_RTS, rel_embeddings=table
        )
        return last_RTH

    def _places(self, length: int, device: torch.device) -> Tensor:
        """Place in the table of relative positions of the distances S - 1, ..., 1 - S of a query from its key."""
        from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

        encoder = self.backbone.encoder
        distance = torch.arange(length - 1, -length, -1, device=device)
        if encoder.position_buckets > 0:
            distance = make_log_bucket_position(distance, encoder.position_buckets, encoder.max_relative_positions)
        return (distance.long() + self._span).clamp_(0, 2 * self._span - 1)


def _by_pair(by_distance: Tensor) -> Tensor:
    """[S, S]: entry (i, j) is that of the distance i - j, from those of S - 1, ..., 1 - S."""
    length = (len(by_distance) + 1) // 2
    return by_distance.unfold(0, length, 1).flip(0)
