"""Which of the two heads a training takes: `one_pass_head.py` where it is right, else `head.py`."""

from __future__ import annotations

from typing import Literal

from megatron.core.transformer.transformer_config import TransformerConfig

from nemo_sspo.config.stages import Train
from nemo_sspo.megatron.gemma2 import final_softcap

Head = Literal["one_pass", "recompute"]


def choose_head(train: Train, config: TransformerConfig, *, separable: bool) -> Head:
    """The one-pass head, unless the loss couples a pair's responses, the model caps its logits, or it is not wanted.

    `separable`: see `objective/separable.py`. A cap stands between the product and the softmax, and only the
    recomputing head differentiates it.
    """
    caps = final_softcap(config) is not None
    return "one_pass" if train.head == "auto" and separable and not caps else "recompute"
