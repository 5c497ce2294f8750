"""A pair's prompt computed once for both of its responses: which parts a row has, and at which positions they stand.

A pair takes three parts of the row, and the prompt's last token stands in each response's part, because it predicts
another token there:

    p_1 ... p_{n-1}  |  p_n c_1 c_2 ...  |  p_n r_1 r_2 ...
    positions 0 ...  |  n-1 ...          |  n-1 ...

Both responses see the first part, and neither the other's (`attention_mask.py`). What a token attends to, and at which
distance, is then what it is in a row of its own; so are its hidden state, every log-prob and, summed over both
responses, the gradients. It needs an attention that takes such a mask (`core_attention.py`, `flex_attention.py`), and
rotary embeddings taken by position rather than by place in the row. Context parallelism cuts the row as one sequence.
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

PARTS = 3
"""Of a pair; the first one is its prompt's."""


def shared_places(part_bounds: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Part and position of each of the `length` tokens of a row, [T] int32 each.

    `part_bounds` as in `Microbatch`. Padding follows the last part: a separate part to which no other token attends.
    """
    token_T = torch.arange(length, device=part_bounds.device)
    part_T = torch.bucketize(token_T, part_bounds[1:], right=True)
    root_T = part_T - part_T % PARTS
    # A response goes on where its prompt's part ends.
    bounds = torch.cat([part_bounds, part_bounds[-1:]])
    prompt_T = torch.where(part_T == root_T, 0, bounds[root_T + 1] - bounds[root_T])
    return part_T.int(), (token_T - bounds[part_T] + prompt_T).int()


@contextmanager
def rotary_by_position(gpt: GPTModel, position_T: Tensor) -> Iterator[None]:
    """Have the model's rotary embeddings of one forward pass follow the positions of the whole row.

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
        # Packed: the whole row's, of which Megatron takes this context-parallel rank's.
        return table(length, packed_seq=True)[position_T]

    rotary.forward = by_position  # shadows the class's method on this instance
    try:
        yield
    finally:
        del rotary.forward
