"""A damaged state is never resumed from: it is set aside by name, and the one before it is taken."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("megatron.core")

from nemo_sspo.config.stages import Parallel
from nemo_sspo.megatron.batches.pairs import PairTable
from nemo_sspo.megatron.binding import Binding
from nemo_sspo.megatron.checkpoints.state_files import INDEX, damage
from nemo_sspo.megatron.checkpoints.states import states
from nemo_sspo.megatron.jobs import TrainingJob
from nemo_sspo.megatron.runtime.forked_ranks import ForkedRanksError
from tests.megatron.worlds import DieAfter, job, train

PARALLEL = Parallel(tensor=2)


def killed_in_step_5(binding: Binding, pairs: PairTable, imported: Path, folder: Path, **settings: Any) -> TrainingJob:
    """A training with states of steps 2 and 4, or what `settings` keep of them."""
    training = job(pairs, imported, folder, PARALLEL, checkpoint_every_steps=2, **settings)
    with pytest.raises(ForkedRanksError):
        train(binding, training, DieAfter(5))
    return training


@pytest.fixture(scope="module")
def whole(
    binding: Binding, supervised: PairTable, imported: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, Any]]:
    """The metrics of a training that nothing happened to."""
    return train(binding, job(supervised, imported, tmp_path_factory.mktemp("whole"), PARALLEL))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "harm", "reason"),
    [
        ("**/*.distcp", flip, "differs from its digest"),
        ("**/.metadata", flip, "differs from its digest"),
        ("**/metadata.json", lambda path: os.truncate(path, 10), "10 bytes in place of"),
        ("**/*.distcp", os.unlink, "missing"),
        (INDEX, flip, "damaged"),
    ],
    ids=["bit of the weights", "bit of the index of tensors", "torn", "missing", "bit of the digests"],
)
def test_a_damaged_newest_state_is_named_and_the_one_before_it_is_taken(
    binding: Binding,
    supervised: PairTable,
    imported: Path,
    tmp_path: Path,
    whole: list[dict[str, Any]],
    name: str,
    harm: Callable[[Path], None],
    reason: str,
) -> None:
    training = killed_in_step_5(binding, supervised, imported, tmp_path)
    assert [state.name for state in states(training.scratch)] == ["step_4", "step_2"]
    assert [damage(state) for state in states(training.scratch)] == [None, None]
    path = max(states(training.scratch)[0].glob(name), key=lambda file: file.stat().st_size)
    harm(path)
    assert train(binding, training) == whole
    (note,) = training.notes
    assert f"the state step_4 is damaged ({path}: " in note
    assert reason in note
    assert note.endswith("training continues from step_2")
    assert (training.scratch / "damaged_step_4").exists()


def test_where_none_is_whole_training_begins_from_its_first_step(
    binding: Binding, supervised: PairTable, imported: Path, tmp_path: Path, whole: list[dict[str, Any]]
) -> None:
    training = killed_in_step_5(binding, supervised, imported, tmp_path, keep_states=1)
    (only,) = states(training.scratch)
    assert only.name == "step_4"
    flip(max(only.glob("**/*.distcp"), key=lambda file: file.stat().st_size))
    assert train(binding, training) == whole
    assert training.notes[0].endswith("training begins from its first step")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"packing": True, "pack_tokens": 256}, {"packing": True, "pack_tokens": 64}),
        ({"packing": True, "pack_tokens": 256}, {"packing": False, "micro_batch_size": 1, "recompute": "full"}),
    ],
    ids=["smaller packs", "padded, recomputed"],
)
def test_a_training_goes_on_from_its_state_with_other_knobs(
    binding: Binding,
    supervised: PairTable,
    imported: Path,
    tmp_path: Path,
    whole: list[dict[str, Any]],
    before: dict[str, Any],
    after: dict[str, Any],
) -> None:
    killed = killed_in_step_5(binding, supervised, imported, tmp_path, **before)
    first = killed.metrics_file.read_text().splitlines()[:4]
    metrics = train(binding, job(supervised, imported, tmp_path, PARALLEL, checkpoint_every_steps=2, **after))
    assert killed.metrics_file.read_text().splitlines()[:4] == first, "steps before the state are not taken again"
    assert [line["step"] for line in metrics] == [line["step"] for line in whole]
    for found, expected in zip(metrics, whole, strict=True):
        assert found["tokens"] == expected["tokens"]
        assert found["loss"] == pytest.approx(expected["loss"], rel=1e-3)
