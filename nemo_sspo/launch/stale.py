"""Which published steps of a run are stale, and the error that refuses to continue with them."""

import shlex
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.artifacts.store import is_published, open_artifact
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.errors import UserError
from nemo_sspo.launch.plan import Step, plan
from nemo_sspo.stages.runner.freshness import Freshness

_NAMED = 3


def freshness_of(experiment: Experiment) -> Freshness:
    """What a run has published, before the settings of `experiment`."""
    return Freshness(experiment, RunLayout(experiment.run_dir))


def stale_steps(steps: Sequence[Step], freshness: Freshness) -> dict[str, tuple[str, ...]]:
    """Why each stale published step is stale, by step name, in plan order."""
    return {step.step_id: reasons for step in steps if (reasons := freshness.reasons(step.output))}


def refuse_stale(experiment: Experiment) -> None:
    """Raise a UserError when a published step is not what today's settings and inputs would make."""
    steps, freshness = plan(experiment), freshness_of(experiment)
    stale = stale_steps(steps, freshness)
    if not stale:
        return
    run = shlex.quote(str(experiment.run_dir))
    changed = {
        step.step_id: lines
        for step in steps
        if step.step_id in stale and (lines := freshness.changed_settings(step.output))
    }
    if changed:
        lines = list(dict.fromkeys(line for of_step in changed.values() for line in of_step))
        raise UserError(
            f"{experiment.run_dir} was made with other settings ({'; '.join(lines)}), which {some(list(changed))} "
            "depends on: give this run another name=..., or the settings it had, or have what they change made anew: "
            f"`nemo-sspo redo {run} {overrides(lines)} --dry-run` lists it"
        )
    raise UserError(
        f"{experiment.run_dir}: {some(list(stale))} {'are' if len(stale) > 1 else 'is'} out of date "
        f"({_first_reason(stale)}): `nemo-sspo redo {run}` makes {'them' if len(stale) > 1 else 'it'} anew, --dry-run "
        "lists what that is"
    )


def refuse_damaged(experiment: Experiment) -> None:
    """Raise a UserError that names a file of a published step that differs from the step's manifest."""
    published = [step.output for step in plan(experiment) if is_published(step.output)]
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda path: open_artifact(path, whole=False), published))


def some(names: Sequence[str]) -> str:
    """A few names, and how many more there are."""
    shown = ", ".join(names[:_NAMED])
    return shown if len(names) <= _NAMED else f"{shown} and {len(names) - _NAMED} more"


def overrides(lines: Sequence[str]) -> str:
    """The settings of lines ``key: before -> after`` as overrides; what cannot be given so is left out."""
    given = []
    for line in lines:
        key, _, change = line.partition(": ")
        after = change.rpartition(" -> ")[2]
        if " " not in key and after != "unset":
            given.append(shlex.quote(f"{key}={after.strip(chr(39))}"))
    return " ".join(given) or "key=value"


def _first_reason(stale: Mapping[str, tuple[str, ...]]) -> str:
    name, reasons = next(iter(stale.items()))
    more = f" and {len(reasons) - 1} more" if len(reasons) > 1 else ""
    return f"{name}: {reasons[0]}{more}"
