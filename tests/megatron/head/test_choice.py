from __future__ import annotations

import pytest

pytest.importorskip("megatron.core")

from nemo_sspo.config.stages import Train
from nemo_sspo.megatron.head.choice import choose_head, head_tile


def test_one_pass_only_where_it_is_right_and_wanted() -> None:
    assert choose_head(Train(), separable=True) == "one_pass"
    assert choose_head(Train(), separable=False) == "recompute"
    assert choose_head(Train(head="recompute"), separable=True) == "recompute"


@pytest.mark.parametrize(("has_gpu", "tokens"), [(False, 1024), (True, 4096)])
def test_tiles_suit_the_device_unless_told(monkeypatch: pytest.MonkeyPatch, has_gpu: bool, tokens: int) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: has_gpu)
    assert head_tile(Train()) == tokens
    assert head_tile(Train(head_chunk_tokens=7)) == 7
