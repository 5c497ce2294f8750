"""Move artifacts that must be remade out of a run: stale ones, named ones, and everything made from either.

Nothing is deleted: a directory is renamed into the run's `set_aside`. Dependants are moved before their inputs, so a
command that is killed half-way leaves no artifact without its inputs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path

from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.artifacts.published import published_steps, read_manifest
from nemo_sspo.artifacts.store import is_published
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.errors import UserError
from nemo_sspo.launch.plan import Step, plan
from nemo_sspo.launch.slurm.jobs import job_name
from nemo_sspo.launch.stale import freshness_of, stale_steps


@dataclass(frozen=True)
class Invalid:
    """A directory of a run that must be remade."""

    name: str
    path: Path
    reason: str

    @property
    def bytes(self) -> int:
        """Size of its files, as its manifest has it."""
        manifest = read_manifest(self.path)
        return 0 if manifest is None else sum(record.size for record in manifest.files.values())


def invalidated(experiment: Experiment, names: Sequence[str]) -> list[Invalid]:
    """Everything that must be remade, dependants first.

    Args:
        experiment: with the settings that shall hold from now on.
        names: steps (``iter_1.train``), or stages of an iteration with all their shards (``iter_1.rollout``).

    Raises:
        UserError: a name is no step's.
    """
    layout, steps = RunLayout(experiment.run_dir), plan(experiment)
    reasons = {step.step_id: "named" for step in _named(steps, names)}
    reasons |= {name: "; ".join(lines) for name, lines in stale_steps(steps, freshness_of(experiment)).items()}
    for step in steps:  # each after those it depends on
        cause = next((parent for parent in step.depends_on if parent in reasons), None)
        if cause is not None:
            reasons.setdefault(step.step_id, f"made from {cause}")
    found = [
        Invalid(step.step_id, path, reasons[step.step_id])
        for step in steps
        if step.step_id in reasons
        for path in (layout.scratch(step.step_id), step.output)
        if (path == step.output and is_published(path)) or (path != step.output and path.is_dir())
    ]
    return [*_benchmarks(layout, reasons), *_no_steps(layout, steps), *reversed(found)]


def _named(steps: Sequence[Step], names: Sequence[str]) -> Iterator[Step]:
    known = dict.fromkeys(name for step in steps for name in (job_name(step), step.step_id))
    for name in names:
        if name not in known:
            close = get_close_matches(name, known, 1)
            meant = f"; did you mean {close[0]}?" if close else "; `nemo-sspo status` lists the steps"
            raise UserError(f"--from {name}: no step of this run{meant}")
        yield from (step for step in steps if name in (step.step_id, job_name(step)))


def _benchmarks(layout: RunLayout, reasons: dict[str, str]) -> Iterator[Invalid]:
    """Benchmark answers of policies that must be remade."""
    for path in sorted(layout.root.glob("benchmarks/iter_[0-9]*/*")):
        iteration = path.parent.name
        if f"{iteration}.export" in reasons and is_published(path):
            yield Invalid(f"{iteration} {path.name}", path, f"made from {iteration}.export")


def _no_steps(layout: RunLayout, steps: Sequence[Step]) -> Iterator[Invalid]:
    """Artifacts that no longer belong to a step of the run, for example of shards that it once had."""
    outputs = {step.output for step in steps}
    for published in published_steps(layout):
        if published.path not in outputs:
            yield Invalid(published.step_id, published.path, "no step of this run with these settings")


def set_aside(layout: RunLayout, found: Sequence[Invalid]) -> Path:
    """Rename them into a directory of their own, in their order. The caller holds the run's lock; returns it."""
    target = layout.set_aside / datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
    for item in found:
        moved = target / item.path.relative_to(layout.root)
        moved.parent.mkdir(parents=True, exist_ok=True)
        item.path.rename(moved)
    return target
