"""Checkpoints kept on the way: what training would have ended with there, and training does not notice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("megatron.core")

from dataclasses import replace

from nemo_sspo.config.stages import Parallel
from nemo_sspo.megatron.batches.pairs import PairTable
from nemo_sspo.megatron.binding import Binding
from nemo_sspo.megatron.checkpoints.state_files import INDEX, damage
from nemo_sspo.megatron.jobs import TrainingJob
from nemo_sspo.megatron.runtime.forked_ranks import ForkedRanksError
from tests.megatron.worlds import DieAfter, job, train


def content(directory: Path) -> dict[str, bytes]:
    """Every file of a checkpoint."""
    return {path.name: path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}


@pytest.mark.parametrize(
    ("parallel", "settings"),
    [
        (Parallel(data=2, overlap_communication=True), {}),
        (Parallel(tensor=2, sequence=True), {"peft": "lora", "lora_rank": 4, "lora_alpha": 10.0}),
    ],
    ids=["DP2 overlapped", "TP2 SP, LoRA"],
)
def test_a_candidate_is_the_end_of_a_shorter_training_and_leaves_the_longer_one_alone(
    binding: Binding,
    supervised: PairTable,
    imported: Path,
    tmp_path: Path,
    parallel: Parallel,
    settings: dict[str, Any],
) -> None:
    """Bit by bit, also where training dies once a state of the candidate's own step is saved."""

    def job_in(name: str, **changes: Any) -> TrainingJob:
        return job(supervised, imported, tmp_path / name, parallel, **settings | changes)

    plain, short = job_in("plain"), job_in("short", train_epochs=1, schedule_epochs=2)
    expected = train(binding, plain)
    train(binding, short)

    kept = replace(job_in("kept", checkpoint_every_steps=3), candidates=2)
    assert list(kept.earlier_candidates) == [3]  # of 6 steps, the end of the first of two epochs
    (candidate,) = kept.earlier_candidates.values()
    half_written = candidate / "weights"
    half_written.mkdir(parents=True)
    (half_written / "__9_0.distcp").write_bytes(b"of an attempt that died in writing it")
    with pytest.raises(ForkedRanksError):
        train(binding, kept, DieAfter(3))
    assert train(binding, kept) == expected
    assert content(kept.output) == content(plain.output)
    assert damage(candidate) is None
    (candidate / INDEX).unlink()
    assert content(candidate) == content(short.output) != content(kept.output)
