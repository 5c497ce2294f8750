from __future__ import annotations

import pytest

pytest.importorskip("megatron.core")

from nemo_sspo.config.stages import Train
from nemo_sspo.megatron.head_choice import choose_head


def test_one_pass_only_where_it_is_right_and_wanted() -> None:
    assert choose_head(Train(), separable=True) == "one_pass"
    assert choose_head(Train(), separable=False) == "recompute"
    assert choose_head(Train(head="recompute"), separable=True) == "recompute"
