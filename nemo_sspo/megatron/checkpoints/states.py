"""The states of a training below its scratch: weights, optimizer, schedule and position, to resume a killed step from.

Every file of a state has a digest (`checkpoints/state_files.py`). All files are verified before one is loaded, a
share on each rank. A damaged state is set aside, and training resumes from the one before it.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch
import torch.distributed as dist

from nemo_sspo.artifacts.durable import fsync
from nemo_sspo.errors import UserError
from nemo_sspo.megatron.checkpoints.state_files import damage, seal

_PREFIX = "step_"
_TRAINER = "trainer"


def states(scratch: Path) -> list[Path]:
    """The complete states below `scratch`, the newest first."""
    complete = [path for path in scratch.glob(f"{_PREFIX}*") if path.name.removeprefix(_PREFIX).isdigit()]
    return sorted(complete, key=lambda path: -int(path.name.removeprefix(_PREFIX)))


def draft_of(scratch: Path, step: int, attempt: str) -> Path:
    """Where an attempt writes the state after a step, until it is complete."""
    return scratch / f".{_PREFIX}{step}.{attempt}.partial"


def remove_drafts(scratch: Path) -> None:
    """Remove what attempts that died were writing."""
    for draft in scratch.glob(f".{_PREFIX}*.partial"):
        shutil.rmtree(draft, ignore_errors=True)


def publish(draft: Path, scratch: Path, step: int, keep: int) -> None:
    """Give a draft, which is complete, its digests and the name of a state; keep the newest `keep` states."""
    seal(draft)
    os.rename(draft, scratch / f"{_PREFIX}{step}")
    fsync(scratch)
    for older in states(scratch)[keep:]:
        shutil.rmtree(older, ignore_errors=True)


def name_trainer(draft: Path, trainer: str) -> None:
    """Say in a draft whose state it is: its optimizer and counters are laid out as that trainer does."""
    (draft / _TRAINER).write_text(trainer)


def newest_whole_state(scratch: Path, trainer: str) -> Path | None:
    """The newest state of which every file is as it was written, or None. Collective.

    Newer, damaged states are renamed and reported in the log and in the scratch's notes. Raises UserError where it is
    another trainer's.
    """
    rank, ranks = dist.get_rank(), dist.get_world_size()
    found = [states(scratch)]  # as the first rank sees them: a shared file system may show another one fewer
    dist.broadcast_object_list(found)
    for state in found[0]:
        problem = damage(state, share=rank, shares=ranks)
        is_damaged = torch.tensor(int(problem is not None), device=torch.cuda.current_device())
        dist.all_reduce(is_damaged, op=dist.ReduceOp.MAX)
        if not is_damaged:
            _refuse_another_trainer(state, trainer)
            return state
        problems: list[str | None] = [None] * ranks
        dist.all_gather_object(problems, problem)
        if rank == 0:
            _set_aside(state, next(filter(None, problems)))
        dist.barrier()
    return None


def _refuse_another_trainer(state: Path, trainer: str) -> None:
    file = state / _TRAINER
    wrote = file.read_text() if file.exists() else "nemo"  # the only one of earlier releases
    if wrote != trainer:
        raise UserError(
            f"{state}: written by trainer={wrote}, and trainer={trainer} cannot go on from it; set trainer={wrote}, or "
            "remove it to begin from the first step"
        )


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
