"""What one run has published serves another that would make the same: iteration 1 samples and scores once for all."""

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.artifacts.removed import removed_files
from nemo_sspo.artifacts.store import draft_path, is_published, link_tree
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.launch.plan import Step, plan
from nemo_sspo.stages.runner.settings import stage_settings

_ATTEMPT = "shared"


def share(experiment: Experiment, steps: Sequence[Step], donors: Iterable[Experiment]) -> list[str]:
    """Link into a run what others have published of its missing steps. Only for the holder of the run's lock.

    A step's artifact is taken where the donor's own settings of the step and of every step before it are the run's:
    then both would publish the same.

    Returns:
        Names of the steps that were taken.
    """
    taken = []
    for donor in donors:
        layout, same = RunLayout(donor.run_dir), shared_steps(experiment, donor)
        for step in steps:
            source = layout.root / step.output.relative_to(experiment.run_dir)
            if step.step_id in same and _is_whole(source) and not is_published(step.output):
                _link(source, step.output)
                taken.append(step.step_id)
    return taken


def shared_steps(experiment: Experiment, other: Experiment) -> set[str]:
    """Names of the steps that both runs would make the same."""
    same: set[str] = set()
    theirs = {step.step_id: step for step in plan(other)}
    alike: dict[str, bool] = {}
    for step in plan(experiment):
        partner = theirs.get(step.step_id)
        if partner is None or partner.depends_on != step.depends_on or not same.issuperset(step.depends_on):
            continue
        if step.stage not in alike:
            alike[step.stage] = stage_settings(experiment, step.stage) == stage_settings(other, step.stage)
        if alike[step.stage] and experiment.seed == other.seed:
            same.add(step.step_id)
    return same


def _is_whole(path: Path) -> bool:
    """Published, and `nemo-sspo clean` has removed nothing of it."""
    return is_published(path) and not removed_files(path)


def _link(source: Path, final: Path) -> None:
    final.parent.mkdir(parents=True, exist_ok=True)
    draft = draft_path(final, _ATTEMPT)
    shutil.rmtree(draft, ignore_errors=True)
    link_tree(source, draft)
    draft.rename(final)
