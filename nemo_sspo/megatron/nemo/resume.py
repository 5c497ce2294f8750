"""State to resume a killed training step from: weights, optimizer, schedule and position, in the step's scratch.

Every file of a state has a digest (`checkpoints/state_files.py`). All files are verified before one is loaded, a
share on each rank. A damaged state is set aside, and training resumes from the one before it.

NeMo's strategy writes and reads it (``torch_dist``); the pickled parts of it are this run's own, never a user's file.

Where there are GPUs a state is written in the background: each rank copies its part to the host and forks a process
that writes it, while training goes on. The state gets its name when all ranks' writers have ended well (NeMo polls them
after every step), so a half-written state never has that name.
"""

from __future__ import annotations

import os
import shutil
import signal
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from lightning.pytorch.trainer.connectors.checkpoint_connector import _CheckpointConnector
from nemo.utils.callbacks.dist_ckpt_io import AsyncFinalizableCheckpointIO
from typing_extensions import override

from nemo_sspo.errors import Interrupted
from nemo_sspo.megatron.checkpoints.state_files import damage, fsync, hash_while_writing, seal
from nemo_sspo.megatron.checkpoints.writer_queue import serve_writers

_PREFIX = "step_"
_STOP_SIGNALS = (signal.SIGUSR1, signal.SIGTERM)


def states(scratch: Path) -> list[Path]:
    """The complete states below `scratch`, the newest first."""
    complete = [path for path in scratch.glob(f"{_PREFIX}*") if path.name.removeprefix(_PREFIX).isdigit()]
    return sorted(complete, key=lambda path: -int(path.name.removeprefix(_PREFIX)))


def latest_state(scratch: Path) -> Path | None:
    """The newest complete state below `scratch`, or None."""
    return next(iter(states(scratch)), None)


class VerifiedResume(_CheckpointConnector):
    """Lightning's checkpoint restore, given the scratch directory instead: takes the newest complete state.

    Lightning calls it once the ranks are connected and the model is built.
    """

    @override
    def resume_start(self, checkpoint_path: Any = None) -> None:
        super().resume_start(None if checkpoint_path is None else newest_whole_state(Path(checkpoint_path)))


def newest_whole_state(scratch: Path) -> Path | None:
    """The newest state of which every file is as it was written, or None. Collective.

    Newer, damaged states are renamed and reported in the log and in the scratch's notes.
    """
    rank, ranks = dist.get_rank(), dist.get_world_size()
    found = [states(scratch)]  # as the first rank sees them: a shared file system may show another one fewer
    dist.broadcast_object_list(found)
    for state in found[0]:
        problem = damage(state, share=rank, shares=ranks)
        is_damaged = torch.tensor(int(problem is not None), device=torch.cuda.current_device())
        dist.all_reduce(is_damaged, op=dist.ReduceOp.MAX)
        if not is_damaged:
            return state
        problems: list[str | None] = [None] * ranks
        dist.all_gather_object(problems, problem)
        if rank == 0:
            _set_aside(state, next(filter(None, problems)))
        dist.barrier()
    return None


def _set_aside(state: Path, problem: str) -> None:
    older = next((other for other in states(state.parent) if other != state), None)
    go_on = f"training continues from {older.name}" if older else "training begins from its first step"
    note = f"the state {state.name} is damaged ({problem}): {go_on}"
    print(f"note: {note}", flush=True)
    with notes_file(state.parent).open("a", encoding="utf-8") as notes:
        notes.write(note + "\n")
    aside = state.with_name(f"damaged_{state.name}")
    shutil.rmtree(aside, ignore_errors=True)
    os.rename(state, aside)


def notes_file(scratch: Path) -> Path:
    """Notes of a training's attempts, one per line."""
    return scratch / "notes.txt"


def saves_in_background() -> bool:
    """Whether states are written while training goes on: with GPUs, whose memory a forked writer does not share."""
    return torch.cuda.is_available()


class HoldScratch(pl.Callback):
    """Ends an attempt that another one has replaced: an abandoned node may still be running.

    It comes before every callback that writes below `scratch`.
    """

    def __init__(self, scratch: Path, attempt: str) -> None:
        self._owner = scratch / "owner"
        self._attempt = attempt

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            self._owner.parent.mkdir(parents=True, exist_ok=True)
            self._owner.write_text(self._attempt)

    @override
    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        if trainer.is_global_zero and self._owner.read_text() != self._attempt:
            raise RuntimeError("another attempt at this step has begun: this one ends")


class SaveState(pl.Callback):
    """Saves the whole training state every `every` optimizer steps, and at the end of the step in which a rank gets a
    stop signal (SIGUSR1 or SIGTERM). Keeps the newest `keep` states; at most one is being written."""

    def __init__(self, scratch: Path, every: int | None, keep: int, attempt: str) -> None:
        self._scratch = scratch
        self._every = every
        self._keep = keep
        self._attempt = attempt
        self._told = False
        self._before: dict[signal.Signals, Any] = {}

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            for draft in self._scratch.glob(f".{_PREFIX}*.partial"):
                shutil.rmtree(draft, ignore_errors=True)
        # Lightning's own SIGTERM handler would end the run without a state. It restores the handler it found.
        self._before = {number: signal.signal(number, self._tell) for number in _STOP_SIGNALS}

    def _tell(self, _signal: int, _frame: FrameType | None) -> None:
        self._told = True

    @override
    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        """Raises Interrupted on every rank when any of them got a stop signal; the state is on disk by then."""
        step, stop = trainer.global_step, self._any_rank_told()
        if step >= trainer.max_steps:
            return  # what is left to do is what a state would be saved for
        if stop or (self._every is not None and step % self._every == 0):
            self._save(trainer, step)
        if stop:
            finish_saving(trainer)
            raise Interrupted(f"told to stop; saved after step {step} of {trainer.max_steps}")

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _any_rank_told(self) -> bool:
        """Collective: a signal reaches the ranks at different times, and they must save the same step."""
        told = torch.tensor(int(self._told), device=torch.cuda.current_device())
        dist.all_reduce(told, op=dist.ReduceOp.MAX)
        return bool(told)

    def _save(self, trainer: pl.Trainer, step: int) -> None:
        finish_saving(trainer)
        draft = self._scratch / f".{_PREFIX}{step}.{self._attempt}.partial"
        if trainer.is_global_zero:
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(parents=True)
        dist.barrier()
        serve_writers()
        publish = partial(self._publish, trainer, draft, step)
        in_background = _background_writer(trainer) is not None
        with hash_while_writing():
            trainer.save_checkpoint(draft, storage_options={"finalize_fn": publish} if in_background else None)
        if not in_background:
            dist.barrier()
            publish()

    def _publish(self, trainer: pl.Trainer, draft: Path, step: int) -> None:
        """Collective; every rank has written its part."""
        if trainer.is_global_zero:
            seal(draft)
            os.rename(draft, self._scratch / f"{_PREFIX}{step}")
            fsync(self._scratch)
            for older in states(self._scratch)[self._keep :]:
                shutil.rmtree(older, ignore_errors=True)
        dist.barrier()  # the first rank that leaves has the others killed


def _background_writer(trainer: pl.Trainer) -> AsyncFinalizableCheckpointIO | None:
    io = trainer.strategy.checkpoint_io
    return io if isinstance(io, AsyncFinalizableCheckpointIO) else None


def finish_saving(trainer: pl.Trainer) -> None:
    """Wait for a state that is being written, if there is one, and publish it. Collective.

    Raises CheckpointException when a rank's writer has failed.
    """
    if (writer := _background_writer(trainer)) is not None:
        writer.maybe_finalize_save_checkpoint(blocking=True)
