from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("megatron.core")

import torch
from typing_extensions import override

from nemo_sspo.config.stages import Parallel
from nemo_sspo.errors import UserError
from nemo_sspo.megatron.batches.pairs import PairTable
from nemo_sspo.megatron.binding import Observer, binding
from nemo_sspo.megatron.checkpoints.states import name_trainer, newest_whole_state, publish
from nemo_sspo.megatron.runtime.cpu_runtime import cpu_runtime
from tests.megatron.worlds import job, make_pairs, make_reference, train

CORE = binding("core")
DECAY = 0.25
WHOLE = Parallel(distributed_optimizer=False)
"""The optimizer has parameters, not parts of them."""


class DecaysMatricesAlone(Observer):
    """Raises on the rank where a norm or a bias would decay, or a matrix would not."""

    @override
    def on_start(self, training: Any) -> None:
        seen = set()
        for group in training.optimizer.param_groups:
            for parameter in group["params"]:
                seen.add(parameter.dim())
                assert group["weight_decay"] == (DECAY if parameter.dim() > 1 else 0.0), parameter.shape
        assert seen == {1, 2}


def test_norms_do_not_decay_in_any_version_of_megatron_core(small_llama: Path, tmp_path: Path) -> None:
    CORE.import_policy(small_llama, tmp_path / "nemo", tmp_path / "hf", torch.float32)
    pairs = PairTable(make_pairs(8), make_reference(torch.zeros(8, 2)))
    training = job(pairs, tmp_path, tmp_path / "output", WHOLE, weight_decay=DECAY, train_epochs=1)
    assert len(train(CORE, training, DecaysMatricesAlone())) == 1


@pytest.mark.usefixtures("one_rank")
@pytest.mark.parametrize(("wrote", "reads"), [("nemo", "core"), ("core", "nemo"), (None, "core")])
def test_a_state_of_the_other_trainer_is_refused_by_name(wrote: str | None, reads: str, tmp_path: Path) -> None:
    draft = tmp_path / "draft"
    draft.mkdir()
    (draft / "weights").write_bytes(b"1")
    if wrote is not None:  # earlier releases had NeMo alone, and did not say so
        name_trainer(draft, wrote)
    publish(draft, tmp_path, 3, keep=1)
    with cpu_runtime():
        with pytest.raises(
            UserError, match=rf"step_3: written by trainer={wrote or 'nemo'}, and trainer={reads} cannot"
        ):
            newest_whole_state(tmp_path, reads)
        assert newest_whole_state(tmp_path, wrote or "nemo") == tmp_path / "step_3"
