"""Which of the two heads a training takes, `one_pass_head.py` where it is right, else `head.py`, and by which tiles."""

from __future__ import annotations

from typing import Literal

import torch

from nemo_sspo.config.stages import Train

Head = Literal["one_pass", "recompute"]


def choose_head(train: Train, *, separable: bool) -> Head:
    """The one-pass head, unless the loss couples a pair's responses or it is not wanted.

    `separable`: see `objective/separable.py`. A coupled loss could have it in two passes, the first one for the sums
    (1 product), the second one with the slopes that they give (3 products). `head.py` needs 4 products too, so that
    there would be nothing to gain.
    """
    return "one_pass" if train.head == "auto" and separable else "recompute"


def head_tile(train: Train) -> int:
    """Response tokens of a tile.

    A tile of C tokens costs 6 C V H operations and 12 V H bytes for the sum of the weight's gradient: a Hopper needs
    some 4096 to have nine tenths of its time left for the operations (`benchmarks/gpu/README.md`). A CPU's products
    are so much slower than its memory that 1024 do.
    """
    return train.head_chunk_tokens or (4096 if torch.cuda.is_available() else 1024)
