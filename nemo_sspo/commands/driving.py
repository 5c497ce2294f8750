"""Run what is missing of an experiment on this machine, with the display and the exit code of a command."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.errors import UserError

if TYPE_CHECKING:
    from nemo_sspo.launch.plan import Step


def refuse(found: Sequence[str]) -> None:
    """Raise a UserError for the first of the problems that a dry run lists."""
    if found:
        more = f" (and {len(found) - 1} more: --dry-run lists them)" if len(found) > 1 else ""
        raise UserError(f"{found[0]}{more}")


def drive(experiment: Experiment, console: Console, steps: Sequence["Step"]) -> int:
    """Be the run's only runner until `steps` are published; 0 then, 2 when one refused its input, 1 when one failed."""
    from nemo_sspo.launch.local.step_failed import StepFailed

    try:
        run_steps(experiment, console, steps)
    except StepFailed as failure:
        print(failure, file=sys.stderr)
        return UserError.EXIT_CODE if failure.exit_code == UserError.EXIT_CODE else 1
    return 0


def run_steps(experiment: Experiment, console: Console, steps: Sequence["Step"]) -> None:
    """The same; raises StepFailed when a step failed."""
    from nemo_sspo.launch.local.runner import LocalRunner
    from nemo_sspo.launch.run_directory import bind, hold
    from nemo_sspo.launch.slurm.submit import refuse_beside_jobs
    from nemo_sspo.report.live import live_display

    layout = RunLayout(experiment.run_dir)
    with hold(layout) as lock:
        refuse_beside_jobs(layout.root)
        for change in bind(experiment, layout):
            console.print(f"changed since the last start: {change}", markup=False, highlight=False)
        with live_display(console, len(steps)) as display:
            LocalRunner(experiment, display, lock=lock, steps=steps).run()
