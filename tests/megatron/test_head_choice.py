from __future__ import annotations

import pytest

pytest.importorskip("megatron.core")

from megatron.core.transformer.transformer_config import TransformerConfig

from nemo_sspo.config.stages import Train
from nemo_sspo.megatron.head_choice import choose_head


def config() -> TransformerConfig:
    return TransformerConfig(num_layers=1, hidden_size=8, num_attention_heads=2)


def test_one_pass_only_where_it_is_right_and_wanted() -> None:
    capped = config()
    capped.final_logit_softcapping = 30.0
    assert choose_head(Train(), config(), separable=True) == "one_pass"
    assert choose_head(Train(), config(), separable=False) == "recompute"
    assert choose_head(Train(), capped, separable=True) == "recompute"
    assert choose_head(Train(head="recompute"), config(), separable=True) == "recompute"
