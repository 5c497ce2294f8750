"""The oracle's architecture: PairRM on DeBERTa-v2, under the names that llm-blender's `DebertaV2PairRM` uses.

Input row: [CLS] <|source|> x [SEP] [CLS] <|candidate1|> a [SEP] [CLS] <|candidate2|> b [SEP]
B: rows, L: tokens, H: hidden size
"""

from typing import NamedTuple

import torch
from torch import nn
from transformers import DebertaV2Config, DebertaV2Model, PreTrainedTokenizerFast
from transformers.models.deberta_v2.modeling_deberta_v2 import DebertaV2PreTrainedModel

from scripts.toy.batching import pad_rows

SOURCE, FIRST, SECOND = "<|source|>", "<|candidate1|>", "<|candidate2|>"


class Encodings(NamedTuple):
    """What the encoder makes of a batch of comparisons."""

    tokens_BLH: torch.Tensor
    first_B2H: torch.Tensor
    """state at <|source|> beside state at <|candidate1|>"""
    second_B2H: torch.Tensor
    """state at <|source|> beside state at <|candidate2|>"""


class DebertaV2PairRM(DebertaV2PreTrainedModel):
    """A pairwise ranker: logit > 0 means that the first candidate is the better one."""

    def __init__(self, config: DebertaV2Config):
        super().__init__(config)
        hidden = config.hidden_size
        self.pretrained_model = DebertaV2Model(config)
        self.head_layer = nn.Sequential(
            nn.Dropout(config.drop_out),
            nn.Linear(2 * hidden, hidden),
            nn.Tanh(),
            nn.Dropout(config.drop_out),
            nn.Linear(hidden, config.n_tasks),
        )
        self.post_init()

    def encode(self, ids_BL: torch.Tensor, mask_BL: torch.Tensor) -> Encodings:
        """Run the encoder and pick the states at the three markers."""
        tokens_BLH = self.pretrained_model(input_ids=ids_BL, attention_mask=mask_BL).last_hidden_state
        rows_B = torch.arange(ids_BL.size(0))

        def state_at(marker: int) -> torch.Tensor:
            return tokens_BLH[rows_B, (ids_BL == marker).int().argmax(1)]

        source_BH = state_at(self.config.source_prefix_id)
        first_BH, second_BH = state_at(self.config.cand1_prefix_id), state_at(self.config.cand2_prefix_id)
        return Encodings(tokens_BLH, torch.cat([source_BH, first_BH], -1), torch.cat([source_BH, second_BH], -1))

    def compare(self, encodings: Encodings) -> torch.Tensor:
        """The logits [B] of "first is better than second"."""
        return (self.head_layer(encodings.first_B2H) - self.head_layer(encodings.second_B2H)).mean(-1)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """ids and mask [B, L] -> logits [B]."""
        return self.compare(self.encode(input_ids, attention_mask))


class OracleSize(NamedTuple):
    """Sizes of the small PairRM."""

    vocabulary: int = 1536
    hidden: int = 128
    layers: int = 3
    heads: int = 4
    feed_forward: int = 512
    position_buckets: int = 32


def build_pairrm(size: OracleSize, tokenizer: PreTrainedTokenizerFast) -> DebertaV2PairRM:
    """A freshly initialised PairRM for this tokenizer (DeBERTa-v3's attention: relative, shared keys)."""
    marker_ids = dict(zip(
        ("source_prefix_id", "cand_prefix_id", "cand1_prefix_id", "cand2_prefix_id"),
        tokenizer.convert_tokens_to_ids([SOURCE, "<|candidate|>", FIRST, SECOND]),
        strict=True,
    ))  # fmt: skip
    return DebertaV2PairRM(DebertaV2Config(
        vocab_size=len(tokenizer), hidden_size=size.hidden, num_hidden_layers=size.layers,
        num_attention_heads=size.heads, intermediate_size=size.feed_forward, max_position_embeddings=512,
        type_vocab_size=0, relative_attention=True, position_buckets=size.position_buckets, max_relative_positions=-1,
        norm_rel_ebd="layer_norm", share_att_key=True, pos_att_type=["p2c", "c2p"], position_biased_input=False,
        initializer_range=0.05, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, layer_norm_eps=1e-7,
        pad_token_id=tokenizer.pad_token_id, n_tasks=1, drop_out=0.0, sep_token_id=tokenizer.sep_token_id, **marker_ids,
    ))  # fmt: skip


def segment_ids(tokenizer: PreTrainedTokenizerFast, marker: str, text: str) -> list[int]:
    """[CLS] <|marker|> text [SEP]."""
    return tokenizer.encode(marker + text)


@torch.no_grad()
def compare_rows(model: DebertaV2PairRM, rows: list[list[int]], batch: int = 256) -> torch.Tensor:
    """The logits [N] of N input rows, in their order; rows of similar length share a batch."""
    logits_N = torch.zeros(len(rows))
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        logits_N[chosen] = model(*pad_rows([rows[i] for i in chosen], model.config.pad_token_id))
    return logits_N
