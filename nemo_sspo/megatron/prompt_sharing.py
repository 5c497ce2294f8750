"""A pair's prompt computed once for both of its responses: who sees whom, and at which position.

Legend: S positions of the one packed row.

A pair takes three parts of the row, and the prompt's last token stands in each response's part, because it predicts
another token there:

    p_1 ... p_{n-1}  |  p_n c_1 c_2 ...  |  p_n r_1 r_2 ...
    positions 0 ...  |  n-1 ...          |  n-1 ...

Both responses see the first part, and neither the other's. What a token attends to, and at which distance, is then
what it is in a row of its own; so are its hidden state, every log-prob and, summed over both responses, the gradients.
It needs an attention that takes any mask, which the local layers' does (`layers.py`), and rotary embeddings taken by
position rather than by place in the row.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from megatron.core.models.common.embeddings.rotary_pos_embedding import RotaryEmbedding
from megatron.core.models.gpt import GPTModel
from torch import Tensor

from nemo_sspo.errors import UserError

_PARTS = 3
HIDDEN = -1


def key_distances(part_bounds: Tensor, position_ids_S: Tensor) -> Tensor:
    """[S, S] int32: how many positions before a query (row) a key (column) stands, or HIDDEN where it is not seen.

    `part_bounds` as in `Microbatch`. What follows the last part is padding, which sees itself only.
    """
    row_S = torch.arange(position_ids_S.numel(), device=position_ids_S.device)
    part_S = torch.bucketize(row_S, part_bounds[1:].long(), right=True)
    pair_S, branch_S = part_S // _PARTS, part_S % _PARTS
    is_shared_or_own = (branch_S[None] == 0) | (branch_S[None] == branch_S[:, None])
    is_seen = (pair_S[None] == pair_S[:, None]) & is_shared_or_own & (row_S[None] <= row_S[:, None])
    return torch.where(is_seen, position_ids_S[:, None] - position_ids_S[None], HIDDEN).to(torch.int32)


@contextmanager
def rotary_by_position(gpt: GPTModel, position_ids_S: Tensor) -> Iterator[None]:
    """Have the model's rotary embeddings of one forward pass follow `position_ids_S`.

    Raises:
        UserError: the model's positions are not plain rotary embeddings.
    """
    rotary: Any = getattr(gpt, "rotary_pos_emb", None)
    if type(rotary) is not RotaryEmbedding:
        raise UserError(
            "train.share_prompt needs plain rotary position embeddings, which this policy does not have; "
            "set train.share_prompt=false"
        )
    table = rotary.forward

    def by_position(length: int, *_args: object, **_kwargs: object) -> Tensor:
        return table(length)[position_ids_S]

    rotary.forward = by_position  # shadows the class's method on this instance
    try:
        yield
    finally:
        del rotary.forward
