"""States to resume from, saved every few steps and when a stop signal arrives.

Where there are GPUs a state is written in the background: each rank copies its part to the host and forks a process
that writes it, while training goes on. The state gets its name when all ranks' writers have ended well, so a
half-written state never has that name.
"""

from __future__ import annotations

import shutil
import signal
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from typing_extensions import override

from nemo_sspo.errors import Interrupted
from nemo_sspo.megatron.binding import LiveTraining, Observer
from nemo_sspo.megatron.checkpoints.state_files import hash_while_writing
from nemo_sspo.megatron.checkpoints.states import draft_of, name_trainer, publish, remove_drafts
from nemo_sspo.megatron.checkpoints.writer_queue import serve_writers
from nemo_sspo.megatron.jobs import TrainingJob

_STOP_SIGNALS = (signal.SIGUSR1, signal.SIGTERM)


class SaveStates(Observer):
    """Saves the whole training state every `train.checkpoint_every_steps`, and at the end of the step in which a rank
    gets a stop signal (SIGUSR1 or SIGTERM). Keeps the newest `train.keep_states`; at most one is being written."""

    def __init__(self, job: TrainingJob) -> None:
        self._scratch = job.scratch
        self._attempt = job.attempt
        self._every = job.train.checkpoint_every_steps
        self._keep = job.train.keep_states
        self._steps = len(job.batches)
        self._signalled = False
        self._before: dict[signal.Signals, Any] = {}

    @override
    def on_start(self, training: LiveTraining) -> None:
        if dist.get_rank() == 0:
            remove_drafts(self._scratch)
        # A trainer's own handler of SIGTERM would end the run without a state.
        self._before = {number: signal.signal(number, self._signal) for number in _STOP_SIGNALS}

    def _signal(self, _signal: int, _frame: FrameType | None) -> None:
        self._signalled = True

    @override
    def on_step(self, training: LiveTraining) -> None:
        """Raises Interrupted on every rank when any of them was signalled; the state is on disk by then."""
        step, stop = training.step, self._any_rank_signalled()
        if step >= self._steps:
            return  # a state would only serve what is done next anyway
        if stop or (self._every is not None and step % self._every == 0):
            self._save(training, step)
        if stop:
            training.finish_saving()
            raise Interrupted(f"told to stop; saved after step {step} of {self._steps}")

    @override
    def on_end(self, training: LiveTraining, error: BaseException | None) -> None:
        """After an error the handlers stay: a second signal must not kill a rank before it has answered."""
        if error is None:
            for number, handler in self._before.items():
                signal.signal(number, handler)

    def _any_rank_signalled(self) -> bool:
        """Collective: a signal reaches the ranks at different times, and they must save the same step."""
        signalled = torch.tensor(int(self._signalled), device=torch.cuda.current_device())
        dist.all_reduce(signalled, op=dist.ReduceOp.MAX)
        return bool(signalled)

    def _save(self, training: LiveTraining, step: int) -> None:
        training.finish_saving()
        draft = draft_of(self._scratch, step, self._attempt)
        if dist.get_rank() == 0:
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(parents=True)
            name_trainer(draft, training.trainer)
        dist.barrier()
        serve_writers()
        with hash_while_writing():
            training.save_state(draft, partial(self._publish, draft, step))

    def _publish(self, draft: Path, step: int) -> None:
        """Collective; every rank has written its part."""
        if dist.get_rank() == 0:
            publish(draft, self._scratch, step, self._keep)
        dist.barrier()  # the first rank that leaves has the others killed
