"""States that forked writers write while training goes on: Megatron's machinery, over gloo."""

from __future__ import annotations

import os
import time
from functools import cache, wraps
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("megatron.core")

import torch
from megatron.core.dist_checkpointing.strategies import filesystem_async

from nemo_sspo.config.stages import Parallel
from nemo_sspo.errors import Interrupted
from nemo_sspo.megatron.batches.pairs import PairTable
from nemo_sspo.megatron.binding import Binding, LiveTraining, Observer
from nemo_sspo.megatron.checkpoints.state_files import damage
from nemo_sspo.megatron.checkpoints.states import saves_in_background, states
from nemo_sspo.megatron.runtime.forked_ranks import ForkedRanksError
from tests.megatron.checkpoints.whole import save_again
from tests.megatron.worlds import SignalAfter, job, train

PARALLEL = Parallel(tensor=2, data=2)


@pytest.fixture(autouse=True)
def in_background(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nemo_sspo.megatron.checkpoints.states.saves_in_background", lambda: True)


class _DieWhileWriting(Observer):
    """Every rank dies when the writers of the state of step 4 have just been forked: saved at once, it were whole."""

    def on_step(self, training: LiveTraining) -> None:
        if training.step == 4:
            os._exit(9)


def test_a_state_is_seen_only_when_it_is_whole_and_continues_bit_equal(
    binding: Binding, supervised: PairTable, imported: Path, tmp_path: Path
) -> None:
    whole = train(binding, job(supervised, imported, tmp_path / "whole", PARALLEL))
    killed = job(supervised, imported, tmp_path / "killed", PARALLEL, checkpoint_every_steps=2)
    with pytest.raises(ForkedRanksError):
        train(binding, killed, _DieWhileWriting())
    assert states(killed.scratch)[0] == killed.scratch / "step_2"
    assert not (killed.scratch / "step_4").exists()
    assert train(binding, killed) == whole
    # The last state was published, and the one before it is kept.
    assert sorted(path.name for path in killed.scratch.glob("*step_*")) == ["step_2", "step_4"]
    assert [damage(state) for state in states(killed.scratch)] == [None, None]


def test_a_step_that_is_stopped_ends_when_its_state_is_on_disk(
    binding: Binding, supervised: PairTable, imported: Path, tmp_path: Path
) -> None:
    stopped = job(supervised, imported, tmp_path, PARALLEL)
    with pytest.raises(Interrupted, match="saved after step 2 of 6"):
        train(binding, stopped, SignalAfter(1, rank=1))
    assert states(stopped.scratch)[0] == stopped.scratch / "step_2"


def test_a_writer_that_fails_ends_the_training_and_shows_no_state(
    binding: Binding, supervised: PairTable, imported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(filesystem_async, "_write_item", full_disk)
    failing = job(supervised, imported, tmp_path, Parallel(data=2), checkpoint_every_steps=2)
    # From megatron-core 0.17 on the error has the kind alone of what the writer has logged.
    with pytest.raises(ForkedRanksError, match=r"No space left on device|<class 'OSError'>") as raised:
        train(binding, failing)
    assert not states(failing.scratch), str(raised.value)


def test_a_state_that_is_being_written_at_the_end_leaves_the_final_weights_their_index(
    binding: Binding, supervised: PairTable, imported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last state's writer is at work for two seconds; if the weights' one is by then, it answers after it."""
    training = job(supervised, imported, tmp_path, Parallel(), checkpoint_every_steps=5)
    saving_weights, state = tmp_path / "saving_weights", training.scratch / "step_5"
    write = filesystem_async._write_item

    @cache  # once in each writer, which is a process
    def wait_for(path: Path, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not path.exists() and time.monotonic() < end:
            time.sleep(0.02)

    @wraps(write)
    def slowly(transforms: Any, stream: Any, *args: Any, **settings: Any) -> Any:
        if f".{state.name}." in stream.name:
            wait_for(saving_weights, 2)
        else:
            saving_weights.touch()
            wait_for(state, 1)
        return write(transforms, stream, *args, **settings)

    monkeypatch.setattr(filesystem_async, "_write_item", slowly)
    train(binding, training)
    save_again(imported / "nemo", imported / "hf", Parallel(), tmp_path / "by_one_writer")
    index = Path("weights/.metadata")  # says where in the files each tensor of that name and shape is
    assert (training.output / index).read_bytes() == (tmp_path / "by_one_writer" / index).read_bytes()
    assert state.exists()


def test_on_a_cpu_states_are_written_before_training_goes_on() -> None:
    assert saves_in_background() == torch.cuda.is_available()
