"""The Python API: what the command line does, as four functions and one class. No torch is imported.

    experiment = load_experiment(["experiment=quickstart", "train.learning_rate=1e-3"])
    for step in plan(experiment):
        print(step.step_id, step.gpus)
    finished = run(experiment)                   # or later: open_run("runs/quickstart")
    print(finished.win_rates())                  # {1: Interval(mean=0.66, low=0.63, high=0.69), ...}

What is wrong with an input is a `UserError`, whose text is one line that says what to do.
"""

from pathlib import Path

from rich.console import Console

from nemo_sspo.commands.driving import refuse, run_steps
from nemo_sspo.commands.open_run import OpenRun
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.config.load import load_experiment
from nemo_sspo.errors import UserError
from nemo_sspo.launch.machine import local_cluster
from nemo_sspo.launch.plan import plan
from nemo_sspo.launch.preflight import problems
from nemo_sspo.launch.run_directory import going_on

__all__ = ["OpenRun", "UserError", "load_experiment", "open_run", "plan", "run"]


def run(experiment: Experiment, *, quiet: bool = False) -> OpenRun:
    """Check every input, then run on this machine what is missing of a run; as `nemo-sspo run` does.

    Stages are processes of their own, in the environments of ``experiment.cluster``. A run that is whole starts none.

    Args:
        experiment: from `load_experiment`; its `cluster` must be this machine.
        quiet: show no progress.

    Returns:
        The run, with all of its results.

    Raises:
        UserError: an input is wrong, or another process works on the run.
        StepFailed: a step ended with an error, which its log tells (``nemo_sspo.launch.local.step_failed``).
    """
    experiment = going_on(experiment)
    local_cluster(experiment)
    refuse(problems(experiment))
    run_steps(experiment, Console(quiet=quiet), plan(experiment))
    return open_run(experiment.run_dir)


def open_run(directory: str | Path) -> OpenRun:
    """Read what a run has published, finished or not, on whatever machine it was made.

    Args:
        directory: of the run, as in ``runs/quickstart``.

    Raises:
        UserError: no run lies there.
    """
    return OpenRun(Path(directory))
