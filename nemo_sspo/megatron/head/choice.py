"""Which head a training uses (`one_pass.py` where it is exact, else `recompute.py`) and the size of its tiles."""

from __future__ import annotations

from typing import Literal

import torch

from nemo_sspo.config.stages import Train

Head = Literal["one_pass", "recompute"]


def choose_head(train: Train, *, separable: bool) -> Head:
    """The one-pass head, unless the loss couples a pair's responses or the setting rules it out.

    `separable`: see `objective/separable.py`. A coupled loss could use it in two passes: one for the sums (1 product)
    and one with the gradients that follow from them (3 products). `recompute.py` needs 4 products too,
    so there is nothing to gain.
    """
    return "one_pass" if train.head == "auto" and separable else "recompute"


def head_tile(train: Train) -> int:
    """Response tokens of a tile.

    A tile of C tokens costs 6 C V H operations and 12 V H bytes for the sum of the weight's gradient: a Hopper
    GPU needs about 4096 to spend nine tenths of its time on the operations (`benchmarks/gpu/README.md`). A CPU's
    products are so much slower than its memory that 1024 are enough.
    """
    return train.head_chunk_tokens or (4096 if torch.cuda.is_available() else 1024)
