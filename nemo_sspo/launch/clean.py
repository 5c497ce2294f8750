"""Free the disk of a run from what nothing that is left to do will read.

Of a published artifact only weights go: its manifest, tables and metrics stay, and its file `removed.json` names what
is gone. Such a step is done as before. A step that would have to read what is gone is refused by name before it starts.
"""

import os
import shutil
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nemo_sspo.artifacts.layout import CANDIDATES, HF_MODEL, NEMO_CHECKPOINT, RunLayout
from nemo_sspo.artifacts.manifest import read_manifest_file
from nemo_sspo.artifacts.removed import mark_removed, removed_files
from nemo_sspo.artifacts.selection import early_stop
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.errors import UserError
from nemo_sspo.launch.plan import Step, plan
from nemo_sspo.launch.stale import freshness_of

Kind = Literal["states", "set-aside", "candidates", "checkpoints", "exports"]
MEANINGS: dict[Kind, str] = {
    "states": "states to resume from of steps that are published, and drafts of killed attempts",
    "set-aside": "what `redo` took out of the run",
    "candidates": "checkpoints that the oracle chose among, and their exports; those of the last training stay",
    "checkpoints": "Megatron checkpoints that no step reads any more; the last one stays, for further iterations",
    "exports": "Hugging Face weights of the iterations before the last",
}
ONLY_WHEN_ASKED: tuple[Kind, ...] = ("exports",)
"""Of use beyond the run: a policy that one may want to serve or to benchmark."""


@dataclass(frozen=True)
class Disposable:
    """Something that may go."""

    kind: Kind
    path: Path
    """An artifact's directory, of which `files` go; or a directory that goes whole."""
    files: tuple[str, ...] = ()

    @property
    def paths(self) -> list[Path]:
        """Its files."""
        if self.files:
            return [self.path / name for name in self.files]
        return [path for path in self.path.rglob("*") if path.is_file() and not path.is_symlink()]


def disposable(experiment: Experiment, kinds: Container[str]) -> list[Disposable]:
    """What may go of these kinds; nothing that a step which is not done reads."""
    layout, steps = RunLayout(experiment.run_dir), plan(experiment)
    found = [*_states(layout, steps, experiment), *_set_aside(layout), *_weights(experiment, steps)]
    return [item for item in found if item.kind in kinds and item.paths]


def freed_bytes(found: Sequence[Disposable]) -> int:
    """What the disk has more of afterwards: a file that is linked elsewhere too frees nothing."""
    links: dict[tuple[int, int], int] = {}
    freed = 0
    for path in (path for item in found for path in item.paths):
        status = path.stat()
        inode = status.st_dev, status.st_ino
        links[inode] = links.get(inode, 0) + 1
        if links[inode] == status.st_nlink:
            freed += status.st_size
    return freed


def remove(item: Disposable) -> None:
    """Remove it. Killed half-way, an artifact says of more files that they are gone than are, never of fewer."""
    if not item.files:
        shutil.rmtree(item.path)
        return
    mark_removed(item.path, item.files)
    for path in item.paths:
        path.unlink(missing_ok=True)
    for folder in sorted({path.parent for path in item.paths}, reverse=True):
        while folder != item.path and folder.is_dir() and not os.listdir(folder):
            folder.rmdir()
            folder = folder.parent


def refuse_removed(experiment: Experiment, remade: Container[str] = ()) -> None:
    """Raise a UserError when a step that is still to be run reads weights that are gone.

    Args:
        remade: names of published steps that shall be made anew.
    """
    steps, freshness = plan(experiment), freshness_of(experiment)
    to_run = {s.step_id for s in steps if s.step_id in remade or freshness.standing(s.output) != "current"}
    makers = {step.output: step.step_id for step in steps}
    stop = early_stop(RunLayout(experiment.run_dir))
    for step in steps:
        if step.step_id not in to_run or (stop is not None and stop.leaves_out(step.iteration)):
            continue
        for path in step.inputs:
            if makers[path] not in to_run and (gone := removed_files(path)):
                raise UserError(
                    f"{step.step_id} reads {path / gone[0]}, which `nemo-sspo clean` removed: `nemo-sspo redo "
                    f"{experiment.run_dir} --from {makers[path]}` makes it anew, and what was made from it"
                )


def _states(layout: RunLayout, steps: Sequence[Step], experiment: Experiment) -> Iterator[Disposable]:
    freshness = freshness_of(experiment)
    for step in steps:
        if freshness.standing(step.output) == "current" and layout.scratch(step.step_id).is_dir():
            yield Disposable("states", layout.scratch(step.step_id))
        for draft in sorted(step.output.parent.glob(f".{step.output.name}.*.tmp")):
            yield Disposable("states", draft)


def _set_aside(layout: RunLayout) -> Iterator[Disposable]:
    if layout.set_aside.is_dir():
        yield from (Disposable("set-aside", path) for path in sorted(layout.set_aside.iterdir()) if path.is_dir())


def _weights(experiment: Experiment, steps: Sequence[Step]) -> Iterator[Disposable]:
    layout, freshness = RunLayout(experiment.run_dir), freshness_of(experiment)
    stop = early_stop(layout)
    done = {step.step_id for step in steps if freshness.standing(step.output) == "current"}
    left_out = {step.step_id for step in steps if stop is not None and stop.leaves_out(step.iteration)}
    awaited = {parent for step in steps if step.step_id not in done | left_out for parent in step.depends_on}
    last = max((step.iteration for step in steps if step.stage == "export" and step.step_id in done), default=0)
    if stop is not None:
        last = min(last, stop.result)
    for step in steps:
        if step.step_id not in done or step.step_id in awaited:
            continue
        is_base = step.stage == "import_policy" and experiment.train.reference != "base"
        if step.stage == "train" and step.iteration != last:
            yield from _of(step, "candidates", CANDIDATES)
        if step.stage == "export_candidate":
            yield from _of(step, "candidates", HF_MODEL, suffix=".safetensors")
        if (step.stage == "train" and step.iteration != last) or (is_base and last > 0):
            yield from _of(step, "checkpoints", NEMO_CHECKPOINT)
        if step.stage == "export" and step.iteration != last:
            yield from _of(step, "exports", HF_MODEL, suffix=".safetensors")


def _of(step: Step, kind: Kind, folder: str, suffix: str = "") -> Iterator[Disposable]:
    gone = set(removed_files(step.output))
    names = [name for name in read_manifest_file(step.output).files if name.startswith(f"{folder}/")]
    if files := tuple(sorted(name for name in names if name.endswith(suffix) and name not in gone)):
        yield Disposable(kind, step.output, files)
