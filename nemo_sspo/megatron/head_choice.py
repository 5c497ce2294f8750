"""Which of the two heads a training takes: `one_pass_head.py` where it is right, else `head.py`."""

from __future__ import annotations

from typing import Literal

from nemo_sspo.config.stages import Train

Head = Literal["one_pass", "recompute"]


def choose_head(train: Train, *, separable: bool) -> Head:
    """The one-pass head, unless the loss couples a pair's responses or it is not wanted.

    `separable`: see `objective/separable.py`. A coupled loss could have it in two passes, the first one for the sums
    (1 product), the second one with the slopes that they give (3 products). `head.py` needs 4 products too, so that
    there would be nothing to gain.
    """
    return "one_pass" if train.head == "auto" and separable else "recompute"
