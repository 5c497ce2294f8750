from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest

pytest.importorskip("megatron.core")

from nemo_sspo.config.stages import Parallel
from nemo_sspo.config.trainers import PACKAGES, Trainer
from nemo_sspo.errors import UserError
from nemo_sspo.megatron.batches.pairs import PairTable
from nemo_sspo.megatron.binding import BINDINGS, Binding
from nemo_sspo.megatron.installed import REQUIRED
from tests.megatron.worlds import job


def test_every_choice_of_a_trainer_has_a_binding_that_the_tests_know() -> None:
    assert set(get_args(Trainer)) - {"auto"} == BINDINGS.keys() == PACKAGES.keys() == REQUIRED.keys()


@pytest.mark.parametrize(
    ("parallel", "train", "message"),
    [
        (Parallel(tensor=4), {}, "num_key_value_heads=2 does not divide"),
        (Parallel(tensor=2), {"peft": "lora", "lora_rank": 3}, r"lora_rank=3 .* parallel\.tensor=2"),
    ],
    ids=["model", "adapters"],
)
def test_a_layout_that_does_not_divide_is_refused_before_any_rank_starts(
    binding: Binding,
    supervised: PairTable,
    imported: Path,
    tmp_path: Path,
    parallel: Parallel,
    train: dict[str, Any],
    message: str,
) -> None:
    with pytest.raises(UserError, match=message):
        binding.refuse(job(supervised, imported, tmp_path, parallel, **train))
